"""Train and evaluate class after class of MVTec AD, or scene after scene of STC, with a table at the end.

    python -m train.fit_classes --data MVTEC_ROOT --out-dir models [--classes cable,screw] [--size paper]

What an earlier run has finished is kept, what it was interrupted in goes on. A class that fails does not
stop the others. Started by torchrun, its processes train each class together.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from export.model.cflow import ModelConfig
from export.model.checkpoint import load_checkpoint
from runtime.errors import UserError, run_command
from runtime.files import sha256_of
from train import fit
from train.class_table import ClassResult, format_table, read_results, write_results
from train.data import Dataset, list_classes, open_dataset
from train.evaluate import evaluate
from train.mvtec import PAPER_INPUT_SIDES
from train.paper import average_rows, format_rows
from train.processes import Processes, one_process, processes
from train.stc import is_stc
from train.training import resume_path

RESULTS_NAME = "classes.json"
PAPER = "paper"  # the size that the paper trains each class at
TrainOne = Callable[[Dataset, Path, tuple[int, int]], None]  # (good images, checkpoint to write, input size)
ConfigOf = Callable[[Dataset, tuple[int, int]], ModelConfig]


def fit_classes(
    root: Path,
    names: Sequence[str],
    out_dir: Path,
    size: str,
    train_one: TrainOne,
    *,
    config_of: ConfigOf | None = None,
    force: bool = False,
    group: Processes | None = None,
) -> list[ClassResult]:
    """Train the classes `names` of `root` to `out_dir`/NAME.pt with `train_one` and evaluate each on its test images.

    `size` is as on the command line: 256, HEIGHTxWIDTH or paper. A checkpoint that stands is kept unless `force`,
    if it is of the size and, where given, the model that `config_of` wants; of one that is unchanged since
    `out_dir`/classes.json the figures are kept too. That file is rewritten after every step. A class that fails
    becomes a result with its error. Of the processes of a `group` the first evaluates and writes.
    """
    group = group or one_process()
    record = out_dir / RESULTS_NAME
    results = read_results(record)
    for name in names:
        group.wait()  # so that all find the same files
        earlier = results.get(name, ClassResult(name))
        try:
            results[name] = _train(root, earlier, out_dir / f"{name}.pt", size, train_one, config_of, force, group)
            if group.first:
                write_results(record, _sorted(results))
                results[name] = _evaluate(root, results[name], out_dir / f"{name}.pt")
        except (UserError, OSError) as error:
            results[name] = replace(results.get(name, earlier), error=str(error), figures={})
            print(f"{name}: {error}", file=sys.stderr)
        except Exception as error:  # a defect in one class is no reason to lose a night's other classes
            traceback.print_exc()
            results[name] = replace(results.get(name, earlier), error=repr(error), figures={})
        if group.first:
            write_results(record, _sorted(results))
    return [results[name] for name in names]


def _sorted(results: dict[str, ClassResult]) -> list[ClassResult]:
    return [results[name] for name in sorted(results)]


def _train(
    root: Path,
    earlier: ClassResult,
    out: Path,
    size: str,
    train_one: TrainOne,
    config_of: ConfigOf | None,
    force: bool,
    group: Processes,
) -> ClassResult:
    """Return the class's result without figures, or with those of the checkpoint that stands."""
    dataset = open_dataset(root / earlier.name)
    wanted = _input_size(dataset, size)
    if force or not out.is_file():
        group.wait()  # nobody looks for it any more
        start = time.monotonic()
        train_one(dataset, out, wanted)
        group.wait()
        minutes = (time.monotonic() - start) / 60
        return ClassResult(earlier.name, sha256_of(out), wanted, minutes)
    found = load_checkpoint(out).model.config
    _check_kept(out, found, config_of(dataset, wanted) if config_of else replace(found, input_size=wanted))
    if group.first:
        print(f"{out} stands: kept (--force trains it anew)")
    digest = sha256_of(out)
    unchanged = digest == earlier.checkpoint_sha256
    return replace(earlier, error="") if unchanged else ClassResult(earlier.name, digest, found.input_size)


def _check_kept(out: Path, found: ModelConfig, wanted: ModelConfig) -> None:
    """Raise `UserError` naming the first thing in which a checkpoint that stands is not what is asked for."""
    for field in fields(ModelConfig):
        has, wants = getattr(found, field.name), getattr(wanted, field.name)
        if has != wants:
            expected = f"{out} must be trained with {field.name} {_words(wants)}"
            raise UserError(expected, _words(has), "--force trains it anew, --out-dir elsewhere")


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ("x" if all(isinstance(part, int) for part in value) else ", ").join(map(str, value))
    return str(value)


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


def _train_through_fit(options: argparse.Namespace, config_of: ConfigOf, group: Processes) -> TrainOne:
    """Return the training of one class by train.fit, resumed where it was interrupted."""

    def train_one(dataset: Dataset, out: Path, size: tuple[int, int]) -> None:
        resume = resume_path(out).is_file() and not options.force
        group.wait()  # all have looked
        config, recipe = config_of(dataset, size), fit.recipe_from(options)
        fit.fit(dataset, config, recipe, options.weights, out, resume=resume, group=group)

    return train_one


def paper_averages(root: Path, names: Sequence[str]) -> str:
    """Return the paper's averages over MVTec AD or STC as a table; nothing for other classes."""
    if is_stc(root):
        return format_rows(average_rows("stc"))
    return format_rows(average_rows("mvtec")) if set(names) & set(PAPER_INPUT_SIDES) else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.fit_classes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of classes, each with train/good; or STC's")
    parser.add_argument("--out-dir", type=Path, required=True, help=f"folder for CLASS.pt and {RESULTS_NAME}")
    parser.add_argument("--classes", default="all", help="comma-separated, or all (default: all)")
    parser.add_argument(
        "--size", default="256", help="256, HEIGHTxWIDTH, or paper: the paper's of each class (default: 256)"
    )
    parser.add_argument("--force", action="store_true", help="train anew what stands in --out-dir")
    fit.add_training_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train several classes from the command line. Raises `UserError` at the end if one of them failed."""
    options = _parser().parse_args(argv)
    if options.out_dir.exists() and not options.out_dir.is_dir():
        raise UserError("--out-dir must be a folder to write to", f"the file {options.out_dir}")
    names = choose_classes(options.data, options.classes)

    def config_of(dataset: Dataset, size: tuple[int, int]) -> ModelConfig:
        return fit.config_from(options, dataset, size)

    with processes() as group:
        train_one = _train_through_fit(options, config_of, group)
        how = {"config_of": config_of, "force": options.force, "group": group}
        results = fit_classes(options.data, names, options.out_dir, options.size, train_one, **how)
        if not group.first:
            return
    print(format_table(results))
    print(f"\n{paper_averages(options.data, names)}")
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
