"""Train and evaluate the classes of a data set, or the scenes of STC, with a table at the end.

    python -m train.fit_classes --data MVTEC_ROOT --out-dir models [--classes cable,screw] [--size paper]

One after another here, or with --ray or --dask each as a task of a cluster, whose machines see the folders under the
same names. What an earlier run has finished is kept, what it was interrupted in goes on. A class that fails does not
stop the others. Started by torchrun, its processes train each class together; an error in training then ends them all.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from runtime.cluster import arguments as cluster_arguments
from runtime.cluster.arguments import ClusterSpec
from runtime.common.argument_types import count, output_folder
from runtime.common.errors import UserError, run_command
from runtime.common.notices import say
from runtime.common.program import program_name
from train import fit_options
from train.data.open import list_classes
from train.judging.class_table import ClassResult, format_table, paper_averages, read_results, write_results
from train.loop.processes import Processes, one_process, processes
from train.one_class import Job, attempt, evaluated, job_from, learn, train_or_keep

RESULTS_NAME = "classes.json"


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
        results[name] = train_or_keep(job, results.get(name, ClassResult(name)), group)
        if not group.first:
            continue
        write_results(record, _sorted(results))
        if not results[name].error:
            results[name] = attempt(results[name], partial(evaluated, job, results[name]))
            write_results(record, _sorted(results))
    return group.agree(lambda: [results[name] for name in names])


def _sorted(results: dict[str, ClassResult]) -> list[ClassResult]:
    return [results[name] for name in sorted(results)]


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
    cluster_arguments.add_arguments(parser, "with one class at a time, on a cluster")
    parser.add_argument(
        "--class-cpus", type=count, default=1, metavar="N", help="CPUs of a class on a cluster (default: 1)"
    )
    fit_options.add_training_arguments(parser)
    return parser


def fit_on_cluster(
    spec: ClusterSpec, options: argparse.Namespace, names: Sequence[str]
) -> tuple[list[ClassResult], list[str]]:
    """Train the classes `names` on a cluster and return what became of each, and who turned out poor, a line each.

    `out_dir`/classes.json is rewritten after every class. A class whose worker is lost goes on with another one.
    """
    from runtime.cluster.tasks import Lost, run_tasks

    record = options.out_dir / RESULTS_NAME
    results = read_results(record)
    poor: list[str] = []
    job_from(options, one_process(), [])  # what no class can have is refused here, not once for every class
    tasks = [results.get(name, ClassResult(name)) for name in names]
    for earlier, done in run_tasks(spec, partial(learn, _everywhere(options)), tasks, options.class_cpus):
        if isinstance(done, Lost):
            results[earlier.name] = replace(earlier, error=f"its worker was lost: {done.why}", figures={})
        else:
            results[earlier.name] = done.result
            poor.extend(done.poor)
        say(f"{earlier.name}: {results[earlier.name].error or 'done'}")
        write_results(record, _sorted(results))
    return [results[name] for name in names], poor


def _everywhere(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options as a process in another folder can read them."""
    absolute = {"data": options.data.absolute(), "out_dir": options.out_dir.absolute()}
    if Path(options.weights).is_file():
        absolute["weights"] = str(Path(options.weights).absolute())
    return argparse.Namespace(**{**vars(options), **absolute})


def _cluster(options: argparse.Namespace) -> ClusterSpec | None:
    """Return the cluster to train on, None for none; what only a cluster has a use for is refused without one."""
    spec = cluster_arguments.spec_from(options)
    if spec is None and (options.workers is not None or options.class_cpus != 1):
        raise UserError("--workers and --class-cpus are a cluster's", "neither --ray nor --dask", "add one of them")
    if spec is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a class on several GPUs is torchrun's, without --ray and --dask", "both", "leave one out")
    return spec


def main(argv: Sequence[str] | None = None) -> int:
    """Train several classes from the command line; exit status 1 where one is worse than the simplest model.

    Raises `UserError` at the end if one of them failed.
    """
    poor: list[str] = []
    options = _parser().parse_args(argv)
    names = choose_classes(options.data, options.classes)
    first = True
    if spec := _cluster(options):
        results, poor = fit_on_cluster(spec, options, names)
    else:
        with processes() as group:
            results, first = fit_classes(job_from(options, group, poor), names, group), group.first
    status = 1 if poor and not options.accept_poor else 0
    if not first:
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
