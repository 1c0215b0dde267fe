"""Fuzzes one reader for some seconds in a process of its own.

`python -m tests.reliability.fuzz_child READER SEED SECONDS DIR`.

Before each try the changed file stands under DIR/try, so that it is there still if the process dies of it. Ends with
one JSON line of counts on stdout.
"""

import json
import os
import random
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from runtime.common.errors import UserError
from tests.reliability.readers import READERS, Reader

GIB = 1 << 30
BEAT = "beat"  # a file of the counts so far, written at every try


def main() -> None:
    name, seed, seconds, folder = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])
    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries say a lot
    (folder / "seeds").mkdir(parents=True, exist_ok=True)
    reader = READERS[name](folder / "seeds")
    for kind, data in reader.seeds.items():
        _try(reader, folder, kind, data)
        assert _last["outcome"] == "value", f"the valid {kind} is refused: {_last['what']}"
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + 4 * GIB, virtual + 4 * GIB))  # a belt; what counts is measured
    counts, failures = fuzz(reader, folder, random.Random(seed), seconds)
    print(json.dumps({"tries": sum(counts.values()), **counts, "failures": failures}), file=out, flush=True)
    os._exit(0)


_last: dict[str, str] = {}


def fuzz(
    reader: Reader, folder: Path, rng: random.Random, seconds: float
) -> tuple[dict[str, int], list[dict[str, str]]]:
    """Give `reader` changed files for `seconds`; return the counts and, of each kind of failure, one file."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {"value": 0, "refused": 0, "failed": 0}
    failures: dict[str, dict[str, str]] = {}
    kinds, until = list(reader.seeds), time.monotonic() + seconds
    while time.monotonic() < until:
        kind = rng.choice(kinds)
        data = rng.choice(reader.mutations)(rng, reader.seeds[kind])
        if rng.random() < 0.2:
            data = rng.choice(reader.mutations[:1])(rng, data)
        (folder / BEAT).write_text(json.dumps(counts), encoding="ascii")
        _try(reader, folder, kind, data)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if peak - most > GIB // 1024:
            _last.update(outcome="failed", what=f"took {(peak - most) >> 10} MiB of memory")
        most = max(most, peak)
        counts[_last["outcome"]] += 1
        if _last["outcome"] == "failed" and _last["what"] not in failures and len(failures) < 20:
            kept = folder / f"failure_{os.getpid()}_{len(failures)}_{kind}"
            kept.write_bytes(data)
            failures[_last["what"]] = {"what": _last["what"], "file": str(kept)}
    return counts, list(failures.values())


def _try(reader: Reader, folder: Path, kind: str, data: bytes) -> None:
    """Let the reader read `data`; `_last` says what came of it."""
    place = folder / "try"
    place.mkdir(exist_ok=True)
    for other in place.iterdir():
        other.unlink()
    path = place / kind
    path.write_bytes(data)
    _last.update(outcome="value", what="")
    try:
        value: Any = reader.read(path)
        del value
    except UserError as error:
        _last.update(outcome="refused", what=str(error))
    except SystemExit as error:
        _last.update(outcome="refused" if error.code == 2 else "failed", what=f"exit {error.code}")
    except OSError as error:  # a command tells it in one line
        _last.update(outcome="refused", what=str(error))
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "/tests/" not in f.filename and "site-packages" not in f.filename]
        place_in = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
        _last.update(outcome="failed", what=f"{type(error).__name__} in {place_in}: {str(error)[:120]}")


if __name__ == "__main__":
    main()
