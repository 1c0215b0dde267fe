"""Choose the threshold of a model that stands: `python -m train.set_threshold cable.plan --good DIR`.

From good images for a false-alarm rate, from labelled images by best F1, or by hand. It goes into the sidecar
beside an engine, or into a checkpoint; nothing is rebuilt, and thresholds of other names stay.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from export.images.labelled import check_classes, say_use
from export.images.pairs import check_no_masks_among
from export.images.repeats import different
from runtime.common.errors import UserError, run_command
from runtime.common.files import printable, sweep
from runtime.common.notices import say_once
from runtime.common.program import program_name
from runtime.engines.sidecar import Threshold
from runtime.engines.thresholds import BY_HAND, by_hand, clipped
from runtime.images.folders import describe_ignored, describe_use, list_images
from train.data.open import GOOD, Dataset, LabelledImage, open_dataset
from train.judging.curves import best_pixel_f1
from train.judging.false_alarms import best_f1, from_good_images
from train.judging.judged_set import JudgedSet, judge
from train.judging.model_file import ModelDescription, read_facts, store_threshold
from train.loop.schedule import Recipe

BEST_F1 = "best_f1"


def good_name(false_alarm_rate: float) -> str:
    """Return the name under which a threshold for this rate is kept: `good_0.001`."""
    return f"{GOOD}_{false_alarm_rate:g}"


def from_good_folder(model: Path, folder: Path, false_alarm_rate: float) -> Threshold:
    """Return the threshold for a false-alarm rate from the images in `folder`, judged with `model` itself.

    They must be good and not have been trained on. Copies of others, and images that would have no verdict on the line,
    are left out. Raises `UserError` if none is left, for the very images of the model's training, and where they score
    so high that nothing could be anomalous.
    """
    if not 0 < false_alarm_rate < 1:  # said before judging, not after
        raise UserError("--false-alarm-rate must lie between 0 and 1", str(false_alarm_rate))
    paths = list_images(folder)
    if not paths:
        found = describe_ignored(folder) or "none"
        raise UserError(f"{folder} must hold good images", found, "name the folder that the images lie in")
    check_no_masks_among(paths)
    say_once(describe_use(paths))
    _check_not_trained_on(model, folder, paths)
    judged = judge(model, [LabelledImage(path, GOOD, None) for path in different(paths)])
    shown = np.array([not reason for reason in judged.reasons])
    if not shown.any():
        raise UserError(f"{folder} must hold images that show something", judged.reasons[0], "take others")
    scores, peaks = judged.scores[shown], [float(judged.maps[index].max()) for index in np.flatnonzero(shown)]
    threshold = _judged_with(model, from_good_images(scores.tolist(), false_alarm_rate, peaks))
    if threshold.value >= (end := float(len(read_facts(model).taps))):
        worst = judged.images[int(np.argmax(np.where(shown, judged.scores, -1)))].path
        expected = f"good images must score below {end:g}, the end of the scale, or nothing could be anomalous"
        raise UserError(expected, f"{worst} at it", "remove it if it is not good, take more images, or train again")
    return threshold


def _check_not_trained_on(model: Path, folder: Path, paths: Sequence[Path]) -> None:
    """Raise `UserError` where `paths` in `folder` are all that the model was trained on: they promise nothing."""
    trained_on = read_facts(model).training_data_sha256
    roots = (folder, folder.absolute().parent.parent)  # a folder of images, or train/good in one
    if trained_on and trained_on in {Dataset(root, tuple(map(Path.absolute, paths)), ()).sha256() for root in roots}:
        expected = "--good must be images that the model was not trained on, or its promise is empty"
        raise UserError(expected, f"its training images in {folder}", "name a folder of other good images")


def from_labelled_folder(model: Path, data: Path) -> Threshold:
    """Return the best-F1 threshold on the labelled images of `data`, judged with `model` itself.

    Raises `UserError` unless there are good and anomalous ones.
    """
    test = open_dataset(data).test
    say_use(data, test)
    check_classes(np.array([image.anomalous for image in test], dtype=bool), "best F1")
    return from_judged(model, judge(model, test))


def from_judged(model: Path, judged: JudgedSet) -> Threshold:
    """Return the best-F1 threshold of a labelled set that `model` has judged; of pixels too with every mask known."""
    curves = judged.curves
    of_map = None if curves is None else best_pixel_f1(curves)[1]
    return _judged_with(model, replace(best_f1(judged.scores, judged.anomalous), map_value=of_map))


def _judged_with(model: Path, threshold: Threshold) -> Threshold:
    threshold = clipped(threshold, float(len(read_facts(model).taps)))
    return replace(threshold, method=f"{threshold.method}, judged with {printable(model.name)}")


def _choose(options: argparse.Namespace) -> tuple[str, Threshold]:
    """Return the threshold that the command line asks for, and the name that its kind goes by."""
    if options.good is not None:
        rate = options.false_alarm_rate
        return good_name(rate), from_good_folder(options.model, options.good, rate)
    if options.data is not None:
        return BEST_F1, from_labelled_folder(options.model, options.data)
    return BY_HAND, _by_hand(options)


def _by_hand(options: argparse.Namespace) -> Threshold:
    facts = read_facts(options.model)
    return by_hand(options.value, facts.threshold, float(len(facts.taps)))


def _describe(facts: ModelDescription) -> str:
    threshold = facts.threshold
    return f"{facts.default_threshold}: {threshold.value:.6g} ({threshold.method})"


def _parser() -> argparse.ArgumentParser:
    rate = Recipe().false_alarm_rate
    parser = argparse.ArgumentParser(prog=program_name("python -m train.set_threshold"), description=__doc__)
    parser.add_argument("model", type=Path, help=".pt, .onnx or .plan")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--good", type=Path, help="folder of good images that the model was not trained on")
    how.add_argument("--data", type=Path, help="labelled images, an MVTec-style folder or a list: best F1 on them")
    how.add_argument("--value", type=float, help="this very image score")
    parser.add_argument(
        "--false-alarm-rate", type=float, default=rate, help=f"with --good: wanted share of false alarms ({rate})"
    )
    parser.add_argument("--name", help=f"name to keep it under ({good_name(rate)}, {BEST_F1} or {BY_HAND})")
    parser.add_argument(
        "--default",
        action=argparse.BooleanOptionalAction,
        help="let it decide verdicts from now on (the default with --good only)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Set a threshold from the command line."""
    options = _parser().parse_args(argv)
    before = read_facts(options.model)
    sweep(options.model.parent)
    kind, threshold = _choose(options)
    name = options.name or kind
    default = options.good is not None if options.default is None else options.default
    store_threshold(options.model, name, threshold, default=default)
    print(f"set {name}: {threshold.value:.6g} ({threshold.method})")
    print(f"default before: {_describe(before)}")
    print(f"default now:    {_describe(read_facts(options.model))}")


def command() -> int:
    """Run as a console script."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
