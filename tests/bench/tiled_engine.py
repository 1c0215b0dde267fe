"""A tiled detector of 12-megapixel frames on random weights: its INT8 engine, and the same network on one tile."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from runtime.images.tiles import TileGrid

GRID = TileGrid((3000, 4096), (512, 512), 64)
FRAMES = 4  # good ones: the fewest that INT8 takes


def write_engines(folder: Path, pictures: Callable[[int, int, int], np.ndarray]) -> tuple[Path, Path]:
    """Write both and return the ONNX of the frame and of the tile."""
    import decoders
    import torch

    from export import build_engine
    from export.model.cflow import CFlow
    from export.model.checkpoint import Checkpoint, save_checkpoint
    from export.model.score import freeze_constants
    from runtime.engines.sidecar import Threshold

    decoders.SIZE = GRID.tile
    plain = decoders._model("resnet18", "layer1,layer2,layer3", "slimmest")
    tiled = CFlow(replace(plain.config, tiles=GRID)).eval()
    tiled.load_state_dict(plain.state_dict())
    likely = [torch.randn(9, height, width) for _, height, width in plain.config.tap_sizes]
    constants = freeze_constants(likely, plain.config.score)
    engines = []
    for name, model, size in (("frame", tiled, GRID.frame), ("tile", plain, GRID.tile)):
        good = folder / f"good_{name}"
        good.mkdir()
        for number in range(FRAMES):
            Image.fromarray(pictures(*size, number)).save(good / f"{number}.png", compress_level=1)
        threshold = Threshold(2.999, "near the scale's end: no picture is beyond it")
        checkpoint = folder / f"{name}.pt"
        save_checkpoint(checkpoint, Checkpoint(model, constants, {"one": threshold}, "one", "random", "0" * 64))
        # a budget that nothing misses, so that both leave the same layers out of INT8
        budget = ["--budget-image", "100", "--budget-pixel", "100"]
        build_engine.main([str(checkpoint), "--int8", "--no-plan", *budget, "--calibration-data", str(good)])
        engines.append(folder / f"{name}.int8.onnx")
    return engines[0], engines[1]


def runner(engine: Path) -> Callable[[], object]:
    """Return what judges one frame of noise with an engine on two threads of OpenVINO, warm."""
    from runtime.engines.openvino_session import OpenVinoSession

    session = OpenVinoSession(engine, 2)
    frame = np.random.default_rng(0).integers(0, 256, (1, *session.frame_size, 3), np.uint8)
    session.run(frame)
    return lambda: session.run(frame)


def most_megabytes(engine: Path) -> float:
    """Return the most memory of a process that judges two frames."""
    run = subprocess.run([sys.executable, __file__, str(engine)], capture_output=True, text=True, check=True)
    return float(run.stdout)


if __name__ == "__main__":
    runner(Path(sys.argv[1]))()
    # not getrusage's, which begins with what the process that started this one had
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    print(int(status.split()[0]) * 1024 / 1e6)
