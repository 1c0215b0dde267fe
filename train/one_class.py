"""One class of several: trained or kept, and evaluated; in this process, or as a task of a cluster."""

import argparse
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from export.model.cflow import ModelConfig
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from train import fit, fit_options
from train.data.input_size import check_size
from train.data.open import Dataset, open_dataset
from train.evaluate import evaluate
from train.judging.class_table import ClassResult
from train.loop.processes import Processes, one_process
from train.loop.training import resume_path

PAPER = "paper"  # the size that the paper trains each class at
Outcome = TypeVar("Outcome")
_one_at_a_time = threading.Lock()  # a cluster's worker may have threads; random numbers are the process's


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


def attempt(before: ClassResult, work: Callable[[], Outcome]) -> Outcome | ClassResult:
    """Return what `work` returns, or `before` with the error that it raised."""
    try:
        return work()
    except (UserError, OSError) as error:
        print(f"{before.name}: {error}", file=sys.stderr)
        return replace(before, error=str(error), figures={})
    except Exception as error:  # a defect in one class is no reason to lose a night's other classes
        traceback.print_exc()
        return replace(before, error=repr(error), figures={})


def train_or_keep(job: Job, earlier: ClassResult, group: Processes) -> ClassResult:
    """Return the class's result without figures, or with those of the checkpoint that stands."""
    kept = group.agree(lambda: attempt(earlier, lambda: _kept(job, earlier)))
    if kept is not None:
        return kept
    state = resume_path(job.checkpoint(earlier.name))
    train = partial(_train, job, earlier.name, group.agree(lambda: state.is_file() and not job.force), group)
    if group.count > 1:  # the others would wait for ever for one that goes on after an error: torchrun ends them
        return train()
    return attempt(earlier, train)


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


def evaluated(job: Job, trained: ClassResult) -> ClassResult:
    """Return a trained class's result with its figures; as it is where it has them, or has no test images."""
    folder = job.root / trained.name
    if trained.figures or not open_dataset(folder).test:
        return trained
    return replace(trained, figures=asdict(evaluate(job.checkpoint(trained.name), folder)))


def _paper_size(dataset: Dataset) -> tuple[int, int]:
    if dataset.paper_size is None:
        raise UserError("--size paper needs a class of MVTec AD or a scene of STC", dataset.origin, "give --size 256")
    return dataset.paper_size


def job_from(options: argparse.Namespace, group: Processes, poor: list[str]) -> Job:
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


@dataclass(frozen=True)
class Learnt:
    """What became of a class on a cluster, and what is `poor` about it, a line each."""

    result: ClassResult
    poor: tuple[str, ...] = ()


def learn(options: argparse.Namespace, earlier: ClassResult) -> Learnt:
    """Train and evaluate one class as a task: what stands is kept, what another worker began goes on."""
    poor: list[str] = []
    with _one_at_a_time:
        torch.set_num_threads(options.class_cpus)
        group = one_process()
        job = job_from(options, group, poor)
        result = train_or_keep(job, earlier, group)
        if not result.error:
            result = attempt(result, partial(evaluated, job, result))
    return Learnt(result, tuple(poor))
