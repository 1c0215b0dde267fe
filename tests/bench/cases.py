"""What is measured: each case prepares itself once and then gives samples, figures by name.

Only what both checkouts have is used; imports of the measured packages stand inside, for each belongs to a process.
"""

import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image

Sample = Callable[[], dict[str, float]]
SIZES = {"640x480": (480, 640), "1080p": (1080, 1920)}
LINE_FRAMES = 25
LABELLED, CALIBRATION = 40, 48  # images


class Case(NamedTuple):
    """`prepare` takes the engine that was named, None without, and returns what gives a sample."""

    prepare: Callable[[Path | None], Sample]
    engine: bool = False  # whether it needs one


def milliseconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the median of some runs, of what all threads of this process have computed: waiting for a core is none."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - started))
    return float(np.median(taken))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth picture with some noise, uint8 (H, W, 3)."""
    import cv2

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.add(smooth, rng.integers(0, 8, smooth.shape, np.uint8))


def overlay(_: Path | None) -> Sample:
    """Return the CPU milliseconds of drawing a 1080p frame under a warm map, and of three sinks' overlays."""
    import cv2

    from runtime.images.overlay import draw
    from runtime.result import Result
    from runtime.sinks.judgement import Judgement
    from runtime.sources.frame import Frame

    rng = np.random.default_rng(0)
    warm = cv2.resize(0.6 + 2.4 * rng.random((8, 8)).astype(np.float32), (256, 256), interpolation=cv2.INTER_LINEAR)
    result, image = Result(warm, 2.0, "anomalous", 1.0, 1.0, {}), picture(*SIZES["1080p"])

    def for_three() -> None:
        judgement = Judgement("camera", Frame(image, "frame", 0, 0.0), result)
        for _ in range(3):
            judgement.overlay(3.0) if hasattr(judgement, "overlay") else draw(image, result, 3.0)

    return lambda: {
        "drawn once, CPU ms": milliseconds(lambda: draw(image, result, 3.0)),
        "for folder, video and events, CPU ms": milliseconds(for_three),
    }


def resize(_: Path | None) -> Sample:
    """Return the CPU milliseconds of the host's resize to 256 x 256."""
    from runtime.images import preprocess

    resized = getattr(preprocess, "resize_for_engine", preprocess.resize)
    frames = {name: picture(*size) for name, size in SIZES.items()}
    return lambda: {
        f"{name}, CPU ms": milliseconds(partial(resized, each, (256, 256)), 10) for name, each in frames.items()
    }


def command(folder: "TemporaryDirectory[str]", module: str, *arguments: str) -> Sample:
    """Return what gives the seconds of a command from its start to its end; `folder` keeps what it compiles."""
    line = [sys.executable, "-P", "-m", module, *arguments]
    kept = {
        "CFLOW_CACHE": folder.name,
        "PYTHONPYCACHEPREFIX": f"{folder.name}/compiled",
    }  # as a user's first run leaves
    environment = {**{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}, **kept}

    def sample() -> dict[str, float]:
        _ = folder  # stays as long as this does
        before, started = os.times(), time.perf_counter()
        run = subprocess.run(line, env=environment, capture_output=True, text=True)
        if run.returncode not in (0, 1):  # 1: the frame got no verdict, a form misses its budget
            raise SystemExit(run.stderr)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return {"start to end, s": time.perf_counter() - started, "the same, CPU s": used}

    return sample


def start(engine: Path | None) -> Sample:
    """Return what one image costs `runtime.infer` from its start to its end, at least the second time."""
    folder = TemporaryDirectory()
    Image.fromarray(picture(480, 640)).save(Path(folder.name, "frame.png"))
    return command(folder, "runtime.infer", "--engine", str(engine), "--source", f"{folder.name}/frame.png")


def labelled(root: Path) -> None:
    """Write `LABELLED` pictures of 512 x 512 below `root`, every other one with a bright square and its mask."""
    for number in range(LABELLED):
        kind, image, mask = ("spot", "good")[number % 2], picture(512, 512, number), np.zeros((512, 512), np.uint8)
        if kind == "spot":
            mask[200:260, 10 * number : 10 * number + 60] = 255
            image[mask > 0] = 255
            (root / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(root / "ground_truth" / kind / f"{number:03}_mask.png")
        (root / "test" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "test" / kind / f"{number:03}.png")


def verify(engine: Path | None) -> Sample:
    """Return the seconds of `export.verify` on `LABELLED` images, with all forms that stand beside the engine."""
    labelled(Path((folder := TemporaryDirectory()).name))
    return command(folder, "export.verify", str(engine), "--data", folder.name)


def evaluate(engine: Path | None) -> Sample:
    """Return the seconds of `train.evaluate` on `LABELLED` images."""
    labelled(Path((folder := TemporaryDirectory()).name))
    return command(folder, "train.evaluate", str(engine), "--data", folder.name)


def int8_search(engine: Path | None) -> Sample:
    """Return the seconds of choosing what INT8 leaves out of a fused FP32 graph, with a budget that needs a search."""
    from export.graph.onnx_files import load_model
    from export.precisions.parity import Budget
    from export.precisions.typed_graph import TypingOptions, type_graph

    assert engine is not None
    folder, model = TemporaryDirectory(), load_model(engine)
    for number in range(CALIBRATION):
        Image.fromarray(picture(512, 512, number)).save(Path(folder.name, f"{number:03}.png"))
    budget = Budget(1e-3, 1e-3)
    options = TypingOptions("int8", Path(folder.name), budget=budget, allow_miss=True, allow_anomalous=True)

    def sample() -> dict[str, float]:
        _ = folder  # stays as long as this does
        started, before = time.perf_counter(), time.process_time()
        type_graph(model, options, lambda line: None)
        return {"s": time.perf_counter() - started, "CPU s": time.process_time() - before}

    return sample


def network(_: Path | None) -> Sample:
    """Return the CPU milliseconds of a frame, and the files' megabytes, of detectors as each checkout makes them."""
    import decoders as made

    with TemporaryDirectory() as name:
        folder, runs, sizes = Path(name), {}, {}
        for row, detector in made.ROWS.items():
            graph = made.write_graph(*detector, folder)
            runs[f"{row}: FP32, CPU ms"] = made.openvino_runner(graph)
            runs[f"{row}: INT8, CPU ms"] = made.openvino_runner(made.write_int8(graph, picture))
        products = made.write_graph(*made.ROWS["ResNet-18, slimmest"], folder, "gemm")
        runs["ResNet-18, slimmest: FP32, ONNX Runtime, CPU ms"] = made.onnxruntime_runner(products)
        encoders = {row: made.write_encoder(*made.ROWS[row][:2], folder) for row in made.ROWS if "slimmest" in row}
        alone = {row: made.openvino_runner(graph) for row, graph in encoders.items()}
        sizes["ResNet-18, slimmest, layer2 to layer4: MB"] = made.write_graph(*made.COARSE, folder).stat().st_size / 1e6

    def sample() -> dict[str, float]:
        taken = {row: milliseconds(run, 3) for row, run in runs.items()}
        shares = {
            f"{row}: FP32, full over encoder, fps": milliseconds(run, 3) / taken[f"{row}: FP32, CPU ms"]
            for row, run in alone.items()
        }
        return taken | shares | sizes

    return sample


def pixel_curves(_: Path | None) -> Sample:
    """Return the most memory and the CPU milliseconds of the figures by pixel, a fifth of the pixels defect."""
    from train.judging import curves as module
    from train.judging.metrics import aupro, pixel_auroc

    rng = np.random.default_rng(0)
    masks = np.zeros((20, 200, 200), bool)
    masks[10:, :80] = True
    maps = (rng.random(masks.shape) + 0.5 * masks * rng.random(masks.shape)).astype(np.float32)

    def figures() -> None:
        curves = module.pixel_curves(maps, list(masks))
        assert curves is not None and pixel_auroc(curves) > aupro(curves, 0.05) > 0
        module.best_pixel_f1(curves)

    def sample() -> dict[str, float]:
        taken = milliseconds(figures)
        tracemalloc.start()
        figures()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return {"most bytes a pixel": peak / maps.size, "CPU ms": taken}

    return sample


def line(engine: Path | None) -> Sample:
    """Return the CPU time of a whole line at 25 frames a second (decoding to JSON) over that of its executions."""
    from runtime.detector import load
    from runtime.inspection import Inspection, InspectionOptions
    from runtime.overhead import Generated
    from runtime.sinks.delivery import Deliveries
    from runtime.sinks.json_lines import LinesSink
    from runtime.soak import looped_video, write_clip

    assert engine is not None
    folder, detector = TemporaryDirectory(), load(engine)
    clip, lines = Path(folder.name, "clip.avi"), Path(folder.name, "lines.jsonl")
    write_clip(clip)
    frame = np.random.default_rng(0).integers(0, 256, (1, *detector.session.frame_size, 3), np.uint8)

    def judged() -> None:
        source = Generated("line", looped_video(clip, 3600, 25))
        with (
            Deliveries([LinesSink(lines)]) as deliveries,
            Inspection([source], detector, [deliveries], InspectionOptions(LINE_FRAMES)) as inspection,
        ):
            inspection.run()

    def sample() -> dict[str, float]:
        _ = folder  # stays as long as this does
        execution = milliseconds(lambda: detector.session.run(frame), LINE_FRAMES)
        whole = milliseconds(judged) / LINE_FRAMES
        lines.unlink()
        return {"execution, CPU ms a frame": execution, "whole line over execution": whole / execution}

    return sample


def tiles(_: Path | None) -> Sample:
    """Return the CPU milliseconds of a tiled 12-megapixel frame in INT8, its tiles' own, and the process's most MB.

    Of OpenVINO on two threads; the ratio is of the frame over its number of tiles times one tile.
    """
    import tiled_engine as made

    with TemporaryDirectory() as name:
        frame, tile = made.write_engines(Path(name), picture)
        judge_frame, judge_tile = made.runner(frame), made.runner(tile)
        peak = made.most_megabytes(frame)

    def sample() -> dict[str, float]:
        whole, alone = milliseconds(judge_frame), milliseconds(judge_tile, 9)
        return {
            "frame, CPU ms": whole,
            "tile, CPU ms": alone,
            "frame over tiles": whole / (made.GRID.count * alone),
            "most MB of a process": peak,
        }

    return sample


CASES = {
    "tiles": Case(tiles),
    "network": Case(network),
    "overlay": Case(overlay),
    "resize": Case(resize),
    "pixel_curves": Case(pixel_curves),
    "start": Case(start, engine=True),
    "line": Case(line, engine=True),
    "evaluate": Case(evaluate, engine=True),
    "verify": Case(verify, engine=True),
    "int8_search": Case(int8_search, engine=True),
}
