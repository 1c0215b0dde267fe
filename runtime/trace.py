"""Find in the inspection log what was judged of a part, and what was changed: `cflow trace --log inspections.db`."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from runtime.common.argument_types import count
from runtime.common.errors import run_command
from runtime.common.files import printable, safe_name
from runtime.common.moments import parse_moment
from runtime.common.notices import escaped, say
from runtime.common.program import program_name
from runtime.common.text_table import align, number
from runtime.records.export import write_csv, write_parquet
from runtime.records.read import Query, audit, judgements, options_of_run
from runtime.result import VERDICTS
from runtime.sinks.folder import overlay_places

NOTHING_STATUS = 1
BLOCK = 50  # lines of a table that are aligned together
HEAD = ("time", "part", "recipe", "verdict", "score", "threshold", "source", "frame", "age ms", "answer ms", "engine")
AUDIT_HEAD = ("time", "what", "from", "to", "who", "where")
RECIPE = HEAD.index("recipe")
NOTHING = "-"
SHORT = 12  # digits of a hash that a person is shown


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.trace`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.trace"),
        description="Find judgements in an inspection log, the newest first; also while it is written.",
        epilog="Status 1: nothing was found. Times are in UTC, unless they say another offset.",
    )
    add = parser.add_argument
    add("--log", type=Path, required=True, metavar="FILE.db", help="what runtime.infer --log writes")
    add("--part", metavar="ID", help="judgements of this part only")
    add("--from", dest="since", metavar="TIME", help="captured then or later, as 2026-11-27 or 2026-11-27T13:28")
    add("--to", dest="until", metavar="TIME", help="captured before then")
    add("--verdict", choices=VERDICTS, help="judgements with this verdict only")
    add("--recipe", metavar="NAME", help="judgements by this recipe only")
    add("--limit", type=count, metavar="N", help="the newest N only")
    add("--audit", action="store_true", help="what was changed, by whom, instead of judgements")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--json", action="store_true", help="a JSON object a line, with everything that is known")
    ways.add_argument("--csv", type=Path, metavar="FILE", help="write a table, the oldest first")
    ways.add_argument("--parquet", type=Path, metavar="FILE", help="the same as Parquet (needs pyarrow)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the status is 1 where nothing was found."""
    parser = build_parser()
    args = parser.parse_args(argv)
    query = Query(
        None if args.part is None else printable(args.part),
        None if args.since is None else parse_moment(args.since),
        None if args.until is None else parse_moment(args.until),
        args.verdict,
        None if args.recipe is None else printable(args.recipe),
    )
    file = args.csv or args.parquet
    if args.audit and (query != Query() or file):
        parser.error("--audit stands alone, with --log, --limit and --json")
    if file and args.limit:
        parser.error("--limit is for what is printed; use --from and --to")
    if file:
        return _export(args, query)
    found = audit(args.log) if args.audit else judgements(args.log, query)
    found = islice(found, args.limit)
    if args.json:
        shown = found if args.audit else (_whole(args.log, record) for record in found)
        lines: Iterable[str] = map(json.dumps, shown)
    else:
        judged = not args.audit
        lines = _table(HEAD, map(_row, found), RECIPE) if judged else _table(AUDIT_HEAD, map(_audit_row, found))
    printed = 0
    for line in lines:
        print(line)
        printed += 1
    return 0 if printed else _nothing(args.log)


def _export(args: argparse.Namespace, query: Query) -> int:
    records = judgements(args.log, query, newest_first=False)
    rows = write_csv(args.csv, records) if args.csv else write_parquet(args.parquet, records)
    if not rows:
        return _nothing(args.log)
    print(f"wrote {args.csv or args.parquet}: {rows} judgements")
    return 0


def _nothing(log: Path) -> int:
    say(f"nothing found in {log}")
    return NOTHING_STATUS


def _table(head: Sequence[str], rows: Iterator[Sequence[str]], optional: int = -1) -> Iterator[str]:
    """Yield lines with aligned columns, so many at a time: a log may have millions. Nothing for no rows.

    The column `optional` is left out where none of them has anything in it.
    """
    while block := list(islice(rows, BLOCK)):
        empty = optional >= 0 and all(row[optional] == NOTHING for row in block)
        shown = [
            [cell for place, cell in enumerate(row) if not (empty and place == optional)] for row in [head, *block]
        ]
        yield from align(shown, left=len(head)).splitlines()


def _row(record: dict[str, Any]) -> list[str]:
    verdict = f"none: {record['reason']}" if record["reason"] else record["verdict"]
    numbers = [number(record[name], digits) for name, digits in (("score", 4), ("threshold", 4))]
    times = [number(record[name], 1) for name in ("age_ms", "answer_ms")]
    engine = f"{record['engine'] or '?'} {(record['engine_sha256'] or '')[:SHORT]}"
    named = [record[name] or NOTHING for name in ("part", "recipe")]
    cells = [record["time"], *named, verdict, *numbers, record["source"], record["name"], *times, engine]
    return [escaped(cell) for cell in cells]  # part ids come from outside


def _audit_row(change: dict[str, Any]) -> list[str]:
    named = (change[name] for name in ("time", "what", "old", "new", "who", "origin"))
    return [escaped(cell[:SHORT] if len(cell) == 64 and cell.isalnum() else cell) or NOTHING for cell in named]


def _whole(log: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Return a record for JSON, with where its overlay and its event lie, of those that are still there."""
    texts = {name: json.loads(record[name]) for name in ("boxes", "latency_ms", "parts") if record[name] is not None}
    whole = {**record, **texts}
    options = options_of_run(log, record["run"])
    overlays = (str(path) for path in overlay_places(options, record) if path.is_file())
    whole["overlay"] = next(overlays, None)
    if "events" in options:
        known = _events(Path(options["folder"], options["events"]), safe_name(record["source"]))
        whole["event"] = known.get(f"{record['name']}.jpg")
    return {name: value for name, value in whole.items() if value is not None}


@cache
def _events(folder: Path, source: str) -> dict[str, str]:
    """Return the folder of an event by the name of each of its frames' files."""
    return {frame.name: str(frame.parents[1]) for frame in folder.glob(f"*Z_{source}_*/frames/*.jpg")}


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
