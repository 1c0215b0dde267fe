"""Judge a whole archive again, shard by shard, into Parquet: `cflow judge ARCHIVE --engine cable.onnx --out scores`."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.archive.items import Shard
from runtime.cluster import arguments as cluster_arguments
from runtime.common.addresses import is_url
from runtime.common.argument_types import count, output_file, output_folder
from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.engines.backends import BACKENDS, PRECISIONS
from runtime.sources.arguments import add_view_arguments, view_options

if TYPE_CHECKING:
    from runtime.archive.run import Outcome, Run

PART_SIZE = 100  # images: some seconds of a core, which is what a killed process loses
WORST = 20
ONE_VIEW = ("roi", "mask", "rotate", "flip")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.judge` itself."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.judge"),
        description="Judge all images of an archive: a folder, .tar files, an inspection log's frames, here or by a "
        "URL (s3://, ...). A row an image, also for those that cannot be read. What was judged is not judged again.",
        epilog="merge DIR --out FILE.parquet puts the shards of a folder together; compare A B [--json] [--worst N] "
        "[--out FILE.parquet] tells what another engine changes. Each has its own --help.",
    )
    add = parser.add_argument
    add("archive", metavar="ARCHIVE", help="folder, FILE.tar, FILE.db (an inspection log), or a URL of folder or tar")
    add("--engine", type=Path, required=True, metavar="FILE", help="an .onnx or .plan with its sidecar")
    add("--out", type=output_folder, required=True, metavar="DIR", help="folder of the scores")
    add("--shard", type=Shard.parse, default=Shard(), metavar="I/N", help="the I-th of N shards (default: 1/1)")
    add("--threshold", type=float, metavar="X", help="a score above X is anomalous (default: the engine's own)")
    add("--backend", choices=BACKENDS, default="auto", help="what runs an .onnx (default: %(default)s)")
    add("--bf16", action="store_true", help="bfloat16 products of an .onnx, with OpenVINO on CPUs that have them")
    add("--retry-failed", action="store_true", help="judge again what could not be read before")
    add("--part-size", type=count, default=PART_SIZE, metavar="N", help="images a part (default: %(default)s)")
    add("--max-pixels", type=count, metavar="N", help="most pixels of a file (default: what a quarter of memory takes)")
    cluster_arguments.add_arguments(parser, "with an engine of its own and one thread")
    add_view_arguments(parser.add_argument_group("what of an image is judged"))
    return parser


def build_merge_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.judge merge`."""
    parser = argparse.ArgumentParser(
        prog=f"{program_name('python -m runtime.judge')} merge",
        description="Put all shards of a folder into one file; refused while one is missing.",
    )
    parser.add_argument("scores", type=Path, metavar="DIR", help="what --out was")
    parser.add_argument("--out", type=output_file, required=True, metavar="FILE.parquet", help="the file to write")
    return parser


def build_compare_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.judge compare`."""
    parser = argparse.ArgumentParser(
        prog=f"{program_name('python -m runtime.judge')} compare",
        description="What changes from the scores A to the scores B of one archive: verdicts, scores, images.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="a folder of scores, or a merged file")
    parser.add_argument("b", type=Path, metavar="B", help="the same by another engine")
    parser.add_argument("--worst", type=count, default=WORST, metavar="N", help="images shown (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("--out", type=output_file, metavar="FILE.parquet", help="also write a row for each image")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, `merge` or `compare`. Raises `UserError` for what the user can mend."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["merge"]:
        _merge(build_merge_parser().parse_args(words[1:]))
    elif words[:1] == ["compare"]:
        _compare(build_compare_parser().parse_args(words[1:]))
    else:
        args = build_parser().parse_args(words)
        run = run_from(args)
        from runtime.archive.run import judge_shard

        print(_told(run, judge_shard(run)))


def run_from(args: argparse.Namespace) -> "Run":
    """Return what the command line asks for. Raises `UserError` for what does not go together."""
    from runtime.archive.listing import is_log
    from runtime.archive.run import Run
    from runtime.archive.setup import Setup
    from runtime.images.view import ViewOptions

    view = view_options(args, *(_one(name, getattr(args, name)) for name in ONE_VIEW))
    if view.mask is not None:
        view = replace(view, mask=view.mask.absolute())
    if is_log(args.archive) and view != ViewOptions(max_pixels=args.max_pixels):
        raise UserError("a log's frames are judged as its line saw them", "a view of your own", "leave it out")
    setup = Setup(
        archive=args.archive if is_url(args.archive) else str(Path(args.archive).absolute()),
        engine=args.engine.absolute(),
        threshold=args.threshold,
        backend=args.backend,
        precision=PRECISIONS[1] if args.bf16 else PRECISIONS[0],
        view=view,
        max_pixels=args.max_pixels,
    )
    cluster = cluster_arguments.spec_from(args)
    return Run(setup, args.out, args.shard, args.workers, cluster, args.part_size, args.retry_failed)


def _one(name: str, given: list[Any] | None) -> Any:
    if given is not None and len(given) > 1:
        raise UserError(f"--{name} is given once: all images are seen alike", f"{len(given)} times")
    return given[0] if given else None


def _told(run: "Run", outcome: "Outcome") -> str:
    counts = ", ".join(f"{outcome.verdicts[verdict]} {verdict}" for verdict in ("good", "anomalous", "none"))
    errors = f" ({outcome.errors} could not be read)" if outcome.errors else ""
    pace = f", {outcome.pace:.1f} a second" if outcome.pace else ""
    return (
        f"shard {run.shard}: {sum(outcome.verdicts.values())} images: {counts}{errors}\n"
        f"{outcome.new} judged now in {outcome.seconds:.1f} s{pace}; wrote {outcome.file}"
    )


def _merge(args: argparse.Namespace) -> None:
    from runtime.archive.merge import merge

    shards, rows = merge(args.scores, args.out)
    print(f"wrote {args.out}: {rows} images of {shards} shards")


def _compare(args: argparse.Namespace) -> None:
    from runtime.archive.compare import compare

    found = compare(args.a, args.b, args.worst)
    if args.out is not None:
        found.write(args.out)
    print(json.dumps(found.fields(), indent=2) if args.json else found.text())


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
