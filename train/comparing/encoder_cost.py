"""What each encoder costs a detector: its accuracy after a short training, what INT8 changes of it, and its speed.

Each detector is trained, exported, fused and typed as a user's is, and OpenVINO judges the labelled test images with
both its FP32 and its INT8 graph. Then all graphs are timed in turn, a frame each, so that what else the machine does
meets all of them alike: the medians' ratios hold where the times themselves wander.
"""

import contextlib
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from export.build_engine import BuildRequest, build_engine
from export.graph.onnx_files import load_model, save_model
from export.graph.parts import encoder_taps, up_to
from export.images.labelled import auroc
from export.model.cflow import ModelConfig
from export.precisions.typed_graph import TypingOptions
from export.trt.options import BuildOptions
from runtime.engines.openvino_session import compile_options, openvino_core
from runtime.engines.sidecar import INPUT_NAME
from runtime.images.folders import evenly_spread
from train.data.open import Dataset
from train.fit import fit
from train.judging.judged_set import judge
from train.judging.metrics import pixel_auroc
from train.loop.schedule import Recipe

FORMS = ("encoder", "fp32", "int8")  # the FP32 graph up to its taps, and whole; the INT8 one
CALIBRATION_IMAGES = 24
ROUNDS = 15


@dataclass(frozen=True)
class Areas:
    """AUROC by image and by pixel, in [0, 1]; by pixel None where there are no masks."""

    image: float
    pixel: float | None


@dataclass(frozen=True)
class BuiltDetector:
    """A detector's graphs by `FORMS`, and what the whole ones score; None of random weights."""

    graphs: dict[str, Path]
    areas: tuple[Areas, Areas] | None = None  # FP32's, INT8's


def build_detector(dataset: Dataset, config: ModelConfig, recipe: Recipe, weights: str, folder: Path) -> BuiltDetector:
    """Train on at most 64 good images of `dataset`, evenly spread; build FP32 and INT8 in `folder`, judge with both.

    With the `weights` "random" one pass is enough and nothing is judged: what a graph computes takes the same time.
    """
    folder.mkdir(parents=True)
    few = replace(dataset, train=tuple(dataset.train[index] for index in evenly_spread(len(dataset.train))))
    trained = weights != "random"
    fit(few, config, recipe if trained else replace(recipe, meta_epochs=1), weights, folder / "detector.pt")
    calibration = folder / "good"
    calibration.mkdir()
    for path in few.train[:CALIBRATION_IMAGES]:
        shutil.copy(path, calibration / path.name)
    typing = TypingOptions("int8", calibration, allow_miss=True, allow_anomalous=True)
    built = BuildRequest(folder / "detector.pt", folder / "detector.plan", BuildOptions("int8"), typing)
    with contextlib.redirect_stdout(sys.stderr):  # what a build says is no row of the table
        build_engine(built, backend=None)
    whole = folder / "detector.onnx"
    graph = load_model(whole)
    save_model(up_to(graph, encoder_taps(graph)), folder / "encoder.onnx")
    graphs = dict(zip(FORMS, (folder / "encoder.onnx", whole, folder / "detector.int8.onnx"), strict=True))
    areas = (_areas(graphs["fp32"], dataset), _areas(graphs["int8"], dataset)) if trained else None
    return BuiltDetector(graphs, areas)


def _areas(engine: Path, dataset: Dataset) -> Areas:
    judged = judge(engine, dataset.test)
    by_pixel = None if judged.curves is None else pixel_auroc(judged.curves)
    return Areas(auroc(judged.scores, judged.anomalous), by_pixel)


def times_in_turn(graphs: Sequence[Path], size: tuple[int, int], threads: int, rounds: int = ROUNDS) -> list[float]:
    """Return each graph's median time for one frame of `size`, in milliseconds; each runs once a round."""
    runs = [_open(graph, size, threads) for graph in graphs]
    for run in runs:
        run()  # what is made at the first frame
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, times in zip(runs, taken, strict=True):
            started = time.perf_counter()
            run()
            times.append(1000 * (time.perf_counter() - started))
    return [statistics.median(times) for times in taken]


def _open(graph: Path, size: tuple[int, int], threads: int) -> Callable[[], object]:
    core = openvino_core()
    model = core.read_model(str(graph))
    model.reshape({INPUT_NAME: [1, *size, 3]})
    request = core.compile_model(model, "CPU", compile_options(threads, "float32")).create_infer_request()
    frame = np.random.default_rng(0).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    return lambda: request.infer({INPUT_NAME: frame})
