"""How good models are on a labelled set: `python -m train.evaluate cable.pt cable.onnx --data DIR`.

AUROC by image and by pixel, AUPRO (to 30 % and to 5 % of false pixels), AUPIMO, SegF1, best F1, and the mistakes at
each model's own threshold; beside a class of MVTec AD the paper's figures. AU-sPRO for MVTec LOCO.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.images.labelled import check_classes, say_use
from runtime.common.argument_types import output_file
from runtime.common.errors import UserError, run_command
from runtime.common.files import write_json
from runtime.common.notices import say
from runtime.common.program import program_name
from runtime.engines.sidecar import sidecar_path
from train.data.mvtec import PAPER_INPUT_SIDES
from train.data.open import Dataset, open_dataset
from train.judging.judged_set import JudgedSet, judge
from train.judging.metrics import Evaluation, evaluate_judged
from train.judging.model_file import read_facts, store_threshold
from train.judging.paper_figures import find_class
from train.judging.results import ModelResult, format_beside_paper, format_results, model_result, result_json
from train.set_threshold import BEST_F1, from_judged


def evaluate(path: Path, data: Path) -> Evaluation:
    """Judge the test images of `data` with the `.pt`, `.onnx` or `.plan` at `path`.

    Raises `UserError` where there are no test images or only one class of them.
    """
    return evaluate_judged(judge(path, _labelled(data).test), read_facts(path).threshold.for_map)


def _labelled(data: Path) -> Dataset:
    """Open `data`, which must have good and anomalous test images: said before judging, not after."""
    dataset = open_dataset(data)
    if not dataset.test:
        raise UserError(f"{data} must hold labelled images in test/good and test/<defect>", "none")
    say_use(data, dataset.test)
    check_classes(np.array([image.anomalous for image in dataset.test], dtype=bool), "an evaluation")
    return dataset


def _paper_class(outcome: ModelResult, dataset: Dataset, wanted: str | None) -> str | None:
    """Return the class of MVTec AD that the data, else the model's training data, is named after."""
    return wanted or find_class(dataset.root.resolve().name) or find_class(outcome.facts.data_origin)


def _report_paths(report: Path, models: Sequence[Path]) -> list[Path]:
    """Return where each model's report goes: `report` itself for a single one, else with the model's name in it."""
    if len(models) == 1:
        return [report]
    paths = [report.with_name(f"{report.stem}.{model.name}{report.suffix}") for model in models]
    if len(set(paths)) < len(paths):
        names = ", ".join(model.name for model in models)
        raise UserError("reports of several models need models of different names", names, "evaluate one at a time")
    return paths


def _check_own_thresholds(models: Sequence[Path]) -> None:
    """Raise `UserError` where one model's best F1 would take the place of another's."""
    holders = [model if model.suffix == ".pt" else sidecar_path(model) for model in models]
    if len(set(holders)) < len(holders):
        names = ", ".join(map(str, models))
        raise UserError("--save-best-f1 needs models that share no sidecar", names, "evaluate one at a time")


def _write_report(path: Path, judged: JudgedSet, outcome: ModelResult, dataset: Dataset) -> None:
    from train.page.write import write_report  # draws charts: only where one is wanted

    title = f"{outcome.model.name} on {dataset.origin}"
    threshold = outcome.facts.threshold
    write_report(path, judged, outcome.evaluation, threshold, title, map_threshold=threshold.for_map)
    print(f"wrote {path}", file=sys.stderr)


def _save_best_f1(model: Path, judged: JudgedSet) -> None:
    threshold = from_judged(model, judged)
    store_threshold(model, BEST_F1, threshold, default=False)
    print(f"{model}: saved {BEST_F1} {threshold.value:.4f} ({threshold.method})", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program_name("python -m train.evaluate"), description=__doc__)
    parser.add_argument("models", type=Path, nargs="+", help=".pt, .onnx or .plan")
    parser.add_argument("--data", type=Path, required=True, help="labelled images: an MVTec-style folder, or a list")
    parser.add_argument("--json", type=output_file, help="also write the figures here")
    parser.add_argument(
        "--report", type=output_file, help="also write a page with pictures and curves, e.g. report.html"
    )
    parser.add_argument(
        "--paper-class",
        choices=tuple(PAPER_INPUT_SIDES),
        metavar="CLASS",
        help="class of MVTec AD to compare with (default: the one that the folder or the training data is named after)",
    )
    parser.add_argument(
        "--save-best-f1", action="store_true", help=f"keep each model's best-F1 threshold in it as {BEST_F1}"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate from the command line."""
    options = _parser().parse_args(argv)
    dataset = _labelled(options.data)
    reports = [None] * len(options.models) if options.report is None else _report_paths(options.report, options.models)
    if options.save_best_f1:
        _check_own_thresholds(options.models)
    outcomes, failed = [], []
    for model, report in zip(options.models, reports, strict=True):
        outcome = _outcome_or_error(model, report, dataset, options)
        if isinstance(outcome, str):
            failed.append(outcome)
        else:
            outcomes.append(outcome)
    if outcomes:
        _tell(outcomes, dataset, options)
    if failed:
        raise UserError("every model must be one that can judge this set", f"{len(failed)} that cannot", failed[0])


def _outcome_or_error(
    model: Path, report: Path | None, dataset: Dataset, options: argparse.Namespace
) -> ModelResult | str:
    """Judge with one model; of several, one that cannot be judged with is told, and what it said is returned."""
    try:
        return _outcome(model, report, dataset, options.save_best_f1)
    except UserError as error:
        if len(options.models) == 1:
            raise
        say(f"error: {model}: {error}; the others go on")
        return f"{model}: {error}"


def _outcome(model: Path, report: Path | None, dataset: Dataset, save_best_f1: bool) -> ModelResult:
    facts = read_facts(model)
    judged = judge(model, dataset.test)
    outcome = model_result(model, facts, judged)
    if report is not None:
        _write_report(report, judged, outcome, dataset)
    if save_best_f1:
        _save_best_f1(model, judged)
    return outcome


def _tell(outcomes: Sequence[ModelResult], dataset: Dataset, options: argparse.Namespace) -> None:
    """Print the tables of the models that were judged, and keep their figures where that was asked for."""
    classes = [_paper_class(outcome, dataset, options.paper_class) for outcome in outcomes]
    print(format_results(outcomes))
    for name in dict.fromkeys(filter(None, classes)):
        print("\n" + format_beside_paper([o for o, c in zip(outcomes, classes, strict=True) if c == name], name))
    if options.json:
        pairs = zip(outcomes, classes, strict=True)
        write_json(options.json, {str(outcome.model): result_json(outcome, name) for outcome, name in pairs})


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
