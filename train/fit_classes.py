"""Train and evaluate class after class of MVTec AD, or scene after scene of STC, with a table at the end.

    python -m train.fit_classes --data MVTEC_ROOT --out-dir models [--classes cable,screw] [--size paper]

What an earlier run has finished is kept, what it was interrupted in goes on. A class that fails does not
stop the others. Every option of train.fit but --data, --out and --resume may follow and holds for each class.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from export.model.checkpoint import load_checkpoint
from runtime.errors import UserError, run_command
from runtime.files import sha256_of
from train import fit
from train.class_table import ClassResult, format_table, read_results, write_results
from train.data import Dataset, list_classes, open_dataset
from train.evaluate import evaluate
from train.training import resume_path

RESULTS_NAME = "classes.json"
PAPER = "paper"  # the size that the paper trains each class at
TrainOne = Callable[[Dataset, Path, tuple[int, int]], None]  # (good images, checkpoint to write, input size)


def fit_classes(
    root: Path, names: Sequence[str], out_dir: Path, size: str, train_one: TrainOne, *, force: bool = False
) -> list[ClassResult]:
    """Train the classes `names` of `root` to `out_dir`/NAME.pt with `train_one` and evaluate each on its test images.

    `size` is as on the command line: 256, HEIGHTxWIDTH or paper. A checkpoint that stands is kept unless `force`;
    of one that is unchanged since `out_dir`/classes.json the figures are kept too. That file is rewritten after
    every step. A class that fails becomes a result with its error.
    """
    record = out_dir / RESULTS_NAME
    results = read_results(record)
    for name in names:
        earlier = results.get(name, ClassResult(name))
        try:
            results[name] = _train(root, earlier, out_dir / f"{name}.pt", size, train_one, force)
            write_results(record, _sorted(results))
            results[name] = _evaluate(root, results[name], out_dir / f"{name}.pt")
        except (UserError, OSError) as error:
            results[name] = replace(results.get(name, earlier), error=str(error), figures={})
            print(f"{name}: {error}", file=sys.stderr)
        except Exception as error:  # a defect in one class is no reason to lose a night's other classes
            traceback.print_exc()
            results[name] = replace(results.get(name, earlier), error=repr(error), figures={})
        write_results(record, _sorted(results))
    return [results[name] for name in names]


def _sorted(results: dict[str, ClassResult]) -> list[ClassResult]:
    return [results[name] for name in sorted(results)]


def _train(root: Path, earlier: ClassResult, out: Path, size: str, train_one: TrainOne, force: bool) -> ClassResult:
    """Return the class's result without figures, or with those of the checkpoint that stands."""
    dataset = open_dataset(root / earlier.name)
    wanted = _input_size(dataset, size)
    if force or not out.is_file():
        start = time.monotonic()
        train_one(dataset, out, wanted)
        minutes = (time.monotonic() - start) / 60
        return ClassResult(earlier.name, sha256_of(out), wanted, minutes)
    found = load_checkpoint(out).model.config.input_size
    if found != wanted:
        expected = f"{out} must be trained at {wanted[0]}x{wanted[1]}"
        raise UserError(expected, f"{found[0]}x{found[1]}", "--force trains it anew, --out-dir elsewhere")
    print(f"{out} stands: kept (--force trains it anew)")
    digest = sha256_of(out)
    unchanged = digest == earlier.checkpoint_sha256
    return replace(earlier, error="") if unchanged else ClassResult(earlier.name, digest, found)


def _evaluate(root: Path, trained: ClassResult, out: Path) -> ClassResult:
    folder = root / trained.name
    if trained.figures or not open_dataset(folder).test:
        return trained
    return replace(trained, figures=asdict(evaluate(out, folder)))


def _input_size(dataset: Dataset, size: str) -> tuple[int, int]:
    if size != PAPER:
        return fit.parse_size(size)
    if dataset.paper_size is None:
        raise UserError("--size paper needs a class of MVTec AD or a scene of STC", dataset.origin, "give --size 256")
    return dataset.paper_size


def choose_classes(root: Path, wanted: str) -> tuple[str, ...]:
    """Return the classes that `--classes` names: all, or some of those in `root`, in the order given."""
    known = list_classes(root)
    if wanted == "all":
        return known
    names = tuple(dict.fromkeys(filter(None, map(str.strip, wanted.split(",")))))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(f"--classes must be all or some of {', '.join(known)}", ", ".join(unknown) or "none")
    return names


def _train_through_fit(options: Sequence[str], force: bool) -> TrainOne:
    """Return the training of one class: train.fit's own command with `options`, resumed where it was interrupted."""

    def train_one(dataset: Dataset, out: Path, size: tuple[int, int]) -> None:
        data = dataset.root / dataset.part
        ours = ["--data", str(data), "--out", str(out), "--size", f"{size[0]}x{size[1]}"]  # the last one counts
        resume = resume_path(out).is_file() and not force
        fit.main([*options, *ours, *(["--resume"] if resume else [])])

    return train_one


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.fit_classes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not ours is train.fit's
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of classes, each with train/good; or STC's")
    parser.add_argument("--out-dir", type=Path, required=True, help=f"folder for CLASS.pt and {RESULTS_NAME}")
    parser.add_argument("--classes", default="all", help="comma-separated, or all (default: all)")
    parser.add_argument(
        "--size", default="256", help="256, HEIGHTxWIDTH, or paper: the paper's of each class (default: 256)"
    )
    parser.add_argument("--force", action="store_true", help="train anew what stands in --out-dir")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train several classes from the command line. Raises `UserError` at the end if one of them failed."""
    options, rest = _parser().parse_known_args(argv)
    if options.out_dir.exists() and not options.out_dir.is_dir():
        raise UserError("--out-dir must be a folder to write to", f"the file {options.out_dir}")
    names = choose_classes(options.data, options.classes)
    train_one = _train_through_fit(rest, options.force)
    results = fit_classes(options.data, names, options.out_dir, options.size, train_one, force=options.force)
    print(format_table(results))
    failed = [result.name for result in results if result.error]
    if failed:
        raise UserError(
            "every class must train", f"{len(failed)} failed: {', '.join(failed)}", "run it again when mended"
        )


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
