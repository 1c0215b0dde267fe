"""Every reader is given changed files: it must return a value or refuse in one line, in bounded memory and time.

As a program: `python -m tests.reliability.fuzz [READER ...] --minutes 10 --out FILE.json`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.reliability.fuzz_child import BEAT
from tests.reliability.readers import READERS
from tests.reliability.result import Result, Scale
from tests.support.paths import ROOT

HANGING_S = 20.0
START_S = 120.0  # for the imports and the valid files


def fuzz(name: str, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Fuzz reader `name` and return the counts; a process that dies or hangs counts as one and is begun again."""
    total: dict[str, Any] = {"tries": 0, "value": 0, "refused": 0, "failed": 0, "failures": []}
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 or not total["tries"]:
        found = _child(name, seed + total["failed"], max(left, 1.0), folder)
        for key in ("tries", "value", "refused", "failed"):
            total[key] += found[key]
        total["failures"] += found["failures"]
        if total["failed"] > 50:
            break
    return total


def _child(name: str, seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.reliability.fuzz_child", name, str(seed), str(seconds), str(folder)]
    beat = folder / BEAT
    beat.unlink(missing_ok=True)
    with (folder / "stderr").open("w+b") as errors:
        started = time.time()
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors)
        how = ""
        while child.poll() is None:
            time.sleep(0.2)
            last = beat.stat().st_mtime if beat.exists() else started + START_S - HANGING_S
            if time.time() - last > HANGING_S:
                how = f"hung for {HANGING_S:g} s"
                child.kill()
        said = child.stdout.read() if child.stdout else b""
        if child.returncode == 0 and not how:
            return dict(json.loads(said.splitlines()[-1]))
        errors.seek(0)
        tail = errors.read().decode(errors="replace").strip()[-300:]
    if not beat.exists():
        raise AssertionError(f"fuzzing {name} did not begin: {tail}")
    kept = folder / f"died_{int(time.time())}"
    for path in (folder / "try").iterdir():
        path.replace(kept.with_name(f"{kept.name}_{path.name}"))
    what = {"what": f"{how or f'died with {child.returncode}'}: {tail}", "file": str(kept)}
    counts = json.loads(beat.read_text(encoding="ascii"))
    counts["failed"] += 1
    return {"tries": sum(counts.values()), **counts, "failures": [what]}


def run(scale: Scale, names: "list[str] | None" = None) -> list[Result]:
    """Fuzz every reader for the scale's minutes, one after the other."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or list(READERS):
            found = fuzz(name, 60 * scale.minutes, scale.seed, Path(folder, name))
            details = f"{found['value']} read, {found['refused']} refused in one line"
            if found["failures"]:
                details = found["failures"][0]["what"]
            results.append(
                Result("fuzzing", f"changed files to the {name} reader", found["tries"], found["failed"], details)
            )
    return results


def main() -> None:
    """Fuzz by itself and keep what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", choices=[*READERS, []], help="default: all")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, default=Path("build/reliability/fuzz"))
    options = parser.parse_args()
    for name in options.readers or list(READERS):
        found = fuzz(name, 60 * options.minutes, options.seed, options.keep.resolve() / name)
        line = json.dumps({"reader": name, "minutes": options.minutes, **found})
        print(line, flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
