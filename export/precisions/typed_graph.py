"""One step of the build: the fused FP32 graph to a typed one whose parity is measured and held to a budget."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx

from export.calibration_data import ENOUGH_IMAGES, REFILL, CalibrationData, read_calibration_data
from export.fuse import probe_frames, probe_places
from export.graph.onnx_files import ExportInfo, get_info
from export.graph.weighted_layers import WEIGHTED
from export.images.parity_images import Images, good_images, read_good, read_labelled
from export.precisions.answers import Reference, answers_of
from export.precisions.calibration_checks import FEWEST_IMAGES, check_different, check_good
from export.precisions.opt_out import Choice, Search, left_out_by_default
from export.precisions.parity import BUDGETS, Budget, Parity, compare_answers
from export.precisions.ranges import collect_ranges
from export.precisions.ranking import ranking_table
from export.precisions.typing import to_fp16
from runtime.common.errors import UserError
from runtime.images.preprocess import ReadOptions

PARITY_FRAMES = 32  # good images that the differences are measured on, at most
HELD_OUT_EVERY = 3  # a third of the calibration images gives no ranges, so that what ranges clip can be seen
SPLIT_FROM = 12  # images; with fewer all do both

Say = Callable[[str], None]


@dataclass(frozen=True)
class TypingOptions:
    """How to type a graph, what its parity is measured on, and the budget it is held to (None: the precision's own).

    `labelled` is an MVTec-style folder. With `allow_miss` a missed budget is said and recorded, but no error;
    with `allow_anomalous` so are calibration images that the model itself calls anomalous.
    """

    precision: Literal["fp32", "fp16", "int8"]
    calibration_folder: Path
    calibrator: str = "minmax"
    quantise_permutations: bool = False
    labelled: Path | None = None
    budget: Budget | None = None
    allow_miss: bool = False
    allow_anomalous: bool = False

    @property
    def held_to(self) -> Budget:
        """The budget that counts."""
        return self.budget or BUDGETS[self.precision]


@dataclass(frozen=True, eq=False)
class TypedGraph:
    """A typed graph, its parity as the sidecar holds it, and the hash of its calibration images."""

    model: onnx.ModelProto
    parity: dict[str, float] = field(default_factory=dict)
    calibration_sha256: str = ""


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What a typed graph is judged on: `good` images (random frames where there is no calibration data), labelled ones.

    `foreign` says that the calibration images are no images of this model's: they judge nothing.
    """

    threshold: float
    data: CalibrationData | None
    good: Images
    labelled: Images | None
    foreign: bool

    @property
    def judged(self) -> Images | None:
        """The images that the budget is held on; None where none can judge."""
        return self.labelled or (None if self.data is None or self.foreign else self.good)


def type_graph(model: onnx.ModelProto, options: TypingOptions, say: Say = print) -> TypedGraph:
    """Type the fused `model` and measure what that costs.

    Raises `UserError` where INT8 has too few calibration images, or such as the model calls anomalous, and where the
    budget is missed and may not be.
    """
    if options.precision == "fp32":
        return TypedGraph(model)
    reference = Reference(model)
    evidence = _gather(reference, options, say)
    say(f"typing the graph as {options.precision}")
    typed, known = (to_fp16(model), None) if options.precision == "fp16" else _int8(reference, options, evidence, say)
    on_good, on_labelled = _measure(reference, typed, known, options.precision, evidence, say)
    excess = options.held_to.excess(on_labelled or on_good) if evidence.judged is not None else ""
    _hold(excess, options, say)
    values = _sidecar_values(on_good, on_labelled, options.held_to)
    if evidence.judged is not None:
        values["within_budget"] = float(not excess)
    ranged_on = evidence.data if options.precision == "int8" else None
    return TypedGraph(typed, values, ranged_on.sha256 if ranged_on else "")


def _gather(reference: Reference, options: TypingOptions, say: Say) -> _Evidence:
    """Read the images that there are."""
    info = get_info(reference.model, "the fused model")
    size, read, tiles = info.sidecar.input_size, ReadOptions(info.sidecar.white), info.sidecar.tiles
    data = _calibration_data(options, info, say)
    if data is None:
        good = good_images(list(probe_frames(info)), probe_places(info))
    else:
        good = _held_out(options, data, info, read)
    foreign = data is not None and data.stands_in_for(info.data_origin)
    if data is not None:
        int8 = options.precision == "int8"
        if int8:
            check_different(data, size, read, say)
        check_good(reference, good, say, refuse=int8 and not foreign and not options.allow_anomalous)
    return _Evidence(
        threshold=info.sidecar.threshold.value,
        data=data,
        good=good,
        labelled=None if options.labelled is None else read_labelled(options.labelled, size, read, tiles),
        foreign=foreign,
    )


def _measure(
    reference: Reference,
    typed: onnx.ModelProto,
    known: Parity | None,
    precision: str,
    evidence: _Evidence,
    say: Say,
) -> tuple[Parity, Parity | None]:
    """Return the differences on the good images, and on the labelled ones where there are any; both are said.

    `known` are those on the images that judge, where they have been measured.
    """

    def parity(images: Images) -> Parity:
        if known is not None and images is evidence.judged:
            return known
        return compare_answers(reference.answers(images), answers_of(typed, images), images, evidence.threshold)

    on_good, on_labelled = parity(evidence.good), None
    good = "random frames" if evidence.data is None else "good images"
    say(describe(on_good, precision, good))
    if evidence.labelled is not None:
        on_labelled = parity(evidence.labelled)
        say(describe(on_labelled, precision, "labelled images"))
    if (on_labelled or on_good).verdicts_changed:
        say(
            f"note: the image scores of {good} lie {on_good.image_score_shift:+.1e} from FP32's; "
            "choose the threshold with the engine that you ship: python -m train.set_threshold ENGINE --good DIR"
        )
    return on_good, on_labelled


def _sidecar_values(on_good: Parity, on_labelled: Parity | None, budget: Budget) -> dict[str, float]:
    """Return what the sidecar says of the differences; AUROCs are of the labelled images."""
    values = on_good.to_json()
    if on_labelled is not None:
        of_labels = on_labelled.to_json()
        values |= {name: value for name, value in of_labels.items() if "auroc" in name}
        values["labelled_frames"] = of_labels["frames"]
    return {**values, "budget_image": budget.image, "budget_pixel": budget.pixel}


def _hold(excess: str, options: TypingOptions, say: Say) -> None:
    if not excess:
        return
    precision = options.precision
    if not options.allow_miss:
        cure = "more calibration images, --fp16" if precision == "int8" else "--fp32"
        raise UserError(
            f"{precision} must keep to its parity budget",
            f"a cost of {excess}",
            f"{cure}, or --allow-parity-miss to build it all the same; no {precision} engine was built",
        )
    say(f"PARITY MISSED: {precision} costs {excess}; built all the same, as asked for")


def _int8(
    reference: Reference, options: TypingOptions, evidence: _Evidence, say: Say
) -> tuple[onnx.ModelProto, Parity | None]:
    """Return the INT8 graph with the layers left out that the budget needs, and its differences on what judges.

    The default's, and None, where nothing can judge.
    """
    model, data, judged = reference.model, evidence.data, evidence.judged
    assert data is not None  # INT8 is not typed without
    sidecar = get_info(model, "the fused model").sidecar
    ranged = CalibrationData(_ranged(data), data.sha256, data.origin)
    size, read = sidecar.input_size, ReadOptions(sidecar.white)
    ranges = collect_ranges(model, ranged, size, WEIGHTED, options.calibrator, read, sidecar.tiles)
    left_out = left_out_by_default(model, options.quantise_permutations)
    search = Search(reference, ranges, judged or good_images([]), evidence.threshold, options.held_to, left_out)
    choice = search.choose() if judged is not None else search.default()
    say_choice(choice, say)
    return choice.model, choice.parity


def say_choice(choice: Choice, say: Say) -> None:
    """Print which layers an INT8 graph leaves out, after what ranking."""
    if choice.ranking:
        say(ranking_table(choice.ranking, choice.left_out))
    freed = ", ".join(choice.freed) or "none"
    say(
        f"INT8 does {100 * choice.int8_share:.0f} % of the weighted layers' multiply-adds, FP16 the rest; "
        f"freed for accuracy: {freed}"
    )


def describe(parity: Parity, precision: str, what: str) -> str:
    """Return a line on what a precision changes."""
    line = (
        f"{precision} against fp32 on {parity.frames} {what}: image score differs by {parity.image_score_median:.1e} "
        f"(median), {parity.image_score_p95:.1e} (95 %), {parity.image_score_max:.1e} (largest); "
        f"{parity.verdicts_changed} verdicts changed; noise {parity.image_noise:.3f} by image, "
        f"{parity.pixel_noise:.3f} by pixel"
    )
    if parity.image_auroc is None or parity.image_auroc_fp32 is None:
        return line
    line += f"; image AUROC {100 * parity.image_auroc_fp32:.2f} -> {100 * parity.image_auroc:.2f}"
    if parity.pixel_auroc is not None and parity.pixel_auroc_fp32 is not None:
        line += f", pixel AUROC {100 * parity.pixel_auroc_fp32:.2f} -> {100 * parity.pixel_auroc:.2f}"
    return line


def _ranged(data: CalibrationData) -> tuple[Path, ...]:
    """Return the images that give the ranges."""
    if len(data.paths) < SPLIT_FROM:
        return data.paths
    return tuple(path for index, path in enumerate(data.paths) if index % HELD_OUT_EVERY)


def _held_out(options: TypingOptions, data: CalibrationData, info: ExportInfo, read: ReadOptions) -> Images:
    """Return the images that differences are measured on: for INT8 those that gave no ranges, if there are enough."""
    if options.precision == "int8" and len(data.paths) >= SPLIT_FROM:
        data = CalibrationData(data.paths[::HELD_OUT_EVERY], data.sha256, data.origin)
    return read_good(data, info.sidecar.input_size, PARITY_FRAMES, read, info.sidecar.tiles)


def _calibration_data(options: TypingOptions, info: ExportInfo, say: Say) -> CalibrationData | None:
    """Read the calibration images; only INT8 must have them, and is told when they are few or foreign."""
    folder, int8 = options.calibration_folder, options.precision == "int8"
    if not int8 and not folder.is_dir():
        return None
    data = read_calibration_data(folder)
    count = len(data.paths)
    if int8 and count < FEWEST_IMAGES:
        raise UserError(f"INT8 needs {FEWEST_IMAGES} or more calibration images", f"{count} in {folder}", REFILL)
    if data.stands_in_for(info.data_origin):
        say(
            f"note: {folder} holds the generated stand-in images, which say nothing of this model's scores: parity is "
            f"not held to a budget; {REFILL}"
        )
    elif int8 and count < ENOUGH_IMAGES:
        say(f"note: {count} calibration images; fewer than {ENOUGH_IMAGES} give ranges that clip good parts; {REFILL}")
    return data
