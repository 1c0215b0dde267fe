"""Train and evaluate class after class of a data set, or scene after scene of STC, with a table at the end.

    python -m train.fit_classes --data MVTEC_ROOT --out-dir models [--classes cable,screw] [--size paper]

What an earlier run has finished is kept, what it was interrupted in goes on. A class that fails does not stop
the others. Started by torchrun, its processes train each class together; an error in training then ends them all.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from export.model.cflow import ModelConfig
from export.model.checkpoint import load_checkpoint
from runtime.common.argument_types import output_folder
from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from runtime.common.notices import say
from runtime.common.program import program_name
from train import fit, fit_options
from train.data.input_size import check_size
from train.data.open import Dataset, list_classes, open_dataset
from train.evaluate import evaluate
from train.judging.class_table import ClassResult, format_table, paper_averages, read_results, write_results
from train.loop.processes import Processes, one_process, processes
from train.loop.training import resume_path

RESULTS_NAME = "classes.json"
PAPER = "paper"  # the size that the paper trains each class at
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Job:
    """How the classes in the folder `root` become `out_dir`/NAME.pt.

    `config_of` says which model a class's images ask for, `train_one` writes its checkpoint to a path, going on
    from the state of an interrupted run if its last argument says so. With `force` nothing that stands is kept.
    """

    root: Path
    out_dir: Path
    config_of: Callable[[Dataset], ModelConfig]
    train_one: Callable[[Dataset, ModelConfig, Path, bool], object]
    force: bool = False

    def checkpoint(self, name: str) -> Path:
        """Return where the checkpoint of the class `name` stands."""
        return self.out_dir / f"{name}.pt"


def fit_classes(job: Job, names: Sequence[str], group: Processes | None = None) -> list[ClassResult]:
    """Train the classes `names` one after another, evaluate each on its test images and return what became of it.

    A checkpoint that stands is kept if it is of the model that is asked for; of one that is unchanged since
    `out_dir`/classes.json the figures are kept too. That file is rewritten after every step. A class that fails
    becomes a result with its error. Of the processes of a `group` the first decides, evaluates and writes.
    """
    group = group or one_process()
    record = job.out_dir / RESULTS_NAME
    results = read_results(record)
    for name in names:
        results[name] = _train_or_keep(job, results.get(name, ClassResult(name)), group)
        if not group.first:
            continue
        write_results(record, _sorted(results))
        if not results[name].error:
            results[name] = _attempt(results[name], partial(_evaluate, job, results[name]))
            write_results(record, _sorted(results))
    return group.agree(lambda: [results[name] for name in names])


def _sorted(results: dict[str, ClassResult]) -> list[ClassResult]:
    return [results[name] for name in sorted(results)]


def _attempt(before: ClassResult, work: Callable[[], Outcome]) -> Outcome | ClassResult:
    """Return what `work` returns, or `before` with the error that it raised."""
    try:
        return work()
    except (UserError, OSError) as error:
        print(f"{before.name}: {error}", file=sys.stderr)
        return replace(before, error=str(error), figures={})
    except Exception as error:  # a defect in one class is no reason to lose a night's other classes
        traceback.print_exc()
        return replace(before, error=repr(error), figures={})


def _train_or_keep(job: Job, earlier: ClassResult, group: Processes) -> ClassResult:
    """Return the class's result without figures, or with those of the checkpoint that stands."""
    kept = group.agree(lambda: _attempt(earlier, lambda: _kept(job, earlier)))
    if kept is not None:
        return kept
    state = resume_path(job.checkpoint(earlier.name))
    train = partial(_train, job, earlier.name, group.agree(lambda: state.is_file() and not job.force), group)
    if group.count > 1:  # the others would wait for ever for one that goes on after an error: torchrun ends them
        return train()
    return _attempt(earlier, train)


def _kept(job: Job, earlier: ClassResult) -> ClassResult | None:
    """Return the result of the checkpoint that stands; None if there is one to be trained.

    Raises `UserError` if it is of another model, or if the class cannot be trained as the job asks.
    """
    wanted = job.config_of(open_dataset(job.root / earlier.name))
    out = job.checkpoint(earlier.name)
    if job.force or not out.is_file():
        return None
    _check_kept(out, load_checkpoint(out).model.config, wanted)
    print(f"{out} stands: kept (--force trains it anew)")
    digest = sha256_of(out)
    unchanged = digest == earlier.checkpoint_sha256
    return replace(earlier, error="") if unchanged else ClassResult(earlier.name, digest, wanted.judged_size)


def _train(job: Job, name: str, resume: bool, group: Processes) -> ClassResult:
    dataset, out = open_dataset(job.root / name), job.checkpoint(name)
    config = job.config_of(dataset)
    start = time.monotonic()
    job.train_one(dataset, config, out, resume)
    minutes = (time.monotonic() - start) / 60
    return ClassResult(name, group.agree(lambda: sha256_of(out)), config.judged_size, minutes)


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


def _evaluate(job: Job, trained: ClassResult) -> ClassResult:
    folder = job.root / trained.name
    if trained.figures or not open_dataset(folder).test:
        return trained
    return replace(trained, figures=asdict(evaluate(job.checkpoint(trained.name), folder)))


def _paper_size(dataset: Dataset) -> tuple[int, int]:
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program_name("python -m train.fit_classes"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of classes (train/good in each), STC's, or lists"
    )
    parser.add_argument("--out-dir", type=output_folder, required=True, help=f"folder for CLASS.pt and {RESULTS_NAME}")
    parser.add_argument("--classes", default="all", help="comma-separated, or all (default: all)")
    fit_options.add_size_argument(parser, more="paper: the paper's of each class, ")
    fit_options.add_tile_arguments(parser)
    fit_options.add_acceptance_argument(parser)
    parser.add_argument("--force", action="store_true", help="train anew what stands in --out-dir")
    fit_options.add_file_arguments(parser)
    fit_options.add_training_arguments(parser)
    return parser


def _job(options: argparse.Namespace, group: Processes, poor: list[str]) -> Job:
    """Return the job of the command line: training by train.fit. Who turns out `poor` is added there."""
    recipe = fit_options.recipe_from(options)
    if options.size != PAPER:
        check_size(options.size)  # refused now, not once for every class
    fit_options.tiles_from(options, fit_options.taps_from(options))

    def config_of(dataset: Dataset) -> ModelConfig:
        return fit_options.config_from(options, dataset, _paper_size(dataset) if options.size == PAPER else None)

    def train_one(dataset: Dataset, config: ModelConfig, out: Path, resume: bool) -> None:
        limit = options.max_pixels
        weights = options.weights
        done = fit.fit(dataset, config, recipe, weights, out, resume=resume, group=group, max_pixels=limit)
        poor.extend(f"{out.stem}: {line}" for line in fit.faults_of(done))

    return Job(options.data, options.out_dir, config_of, train_one, options.force)


def main(argv: Sequence[str] | None = None) -> int:
    """Train several classes from the command line; exit status 1 where one is worse than the simplest model.

    Raises `UserError` at the end if one of them failed.
    """
    poor: list[str] = []
    options = _parser().parse_args(argv)
    names = choose_classes(options.data, options.classes)
    with processes() as group:
        results = fit_classes(_job(options, group, poor), names, group)
    status = 1 if poor and not options.accept_poor else 0
    if not group.first:
        return status
    tables = [format_table(results), paper_averages(options.data, names)]
    print("\n\n".join(filter(None, tables)))
    for line in poor:
        say(line)
    failed = [result.name for result in results if result.error]
    if failed:
        raise UserError(
            "every class must train", f"{len(failed)} failed: {', '.join(failed)}", "run it again when mended"
        )
    return status


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
