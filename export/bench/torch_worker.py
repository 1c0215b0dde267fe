"""The report's worker for what torch runs: our own model eagerly, and the baselines PaDiM and SPADE.

`runtime.report` starts it as a process of its own, so that the runtime imports no torch (see `runtime.report.worker`).
On a machine with a CUDA device the modules run there.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from export.bench.baselines.common import Baseline
from export.bench.baselines.padim import Padim
from export.bench.baselines.spade import Spade
from export.model.cflow import DetectorModule
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.engines.any_onnx import Run, open_onnxruntime, open_openvino
from runtime.engines.backends import choose_backend
from runtime.report.worker import ENGINES, Opened, RunBatch, StageMs, Subject, frames_of, serve

ENGINE = "PyTorch"
BASELINES: dict[str, type[Baseline[Any]]] = {"padim": Padim, "spade": Spade}


def open_torch(subject: Subject) -> Opened:
    """Open a checkpoint ("eager") or a baseline ("padim", "spade") of `subject.what`."""
    threads = available_cores() if subject.threads is None else subject.threads
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = Path(next(iter(subject.paths.values())))
    functions = _eager(path, device) if subject.what == "eager" else _baseline(subject, path, device, threads)
    runs = {name: _timed(name, functions[name], subject, device) for name in subject.paths}
    engine = ENGINE if subject.features is None or device.type == "cuda" else f"{_encoder_engine(subject)} + {ENGINE}"
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {threads} threads"
    return Opened(runs, f"{ENGINE} {torch.__version__} {where}", engine, max_batch=32)


def _encoder_engine(subject: Subject) -> str:
    return ENGINES[choose_backend(subject.backend, subject.precision)]


def _eager(path: Path, device: torch.device) -> dict[str, Callable[[Tensor], Sequence[Tensor]]]:
    checkpoint = load_checkpoint(path)
    detector = DetectorModule(checkpoint.model, checkpoint.constants).eval().to(device)
    return {"network": detector.model.log_likelihoods, "verdict": detector}


def _baseline(
    subject: Subject, path: Path, device: torch.device, threads: int
) -> dict[str, Callable[[Tensor], Sequence[Tensor]]]:
    if subject.what not in BASELINES:
        raise UserError(f"a baseline is one of {', '.join(BASELINES)}", repr(subject.what))
    module = BASELINES[subject.what].load(path).to(device)
    if subject.features is not None and device.type == "cpu":
        module.features = _features(subject, module.config.crop, threads)
    return {"verdict": module}


def _features(subject: Subject, crop: tuple[int, int], threads: int) -> Callable[[Tensor], list[Tensor]]:
    """Return the baseline's encoder in the engine that judges our own: no baseline is slow for want of one."""
    assert subject.features is not None
    run: Run
    if _encoder_engine(subject) == ENGINES["openvino"]:
        run = open_openvino(subject.features, threads, subject.precision, (1, 3, *crop))
    else:
        run = open_onnxruntime(subject.features, threads)
    return lambda images: [torch.from_numpy(tap) for tap in run(images.contiguous().numpy())]


def _timed(
    name: str, function: Callable[[Tensor], Sequence[Tensor]], subject: Subject, device: torch.device
) -> RunBatch:
    def run(batch: int) -> StageMs:
        frames = torch.from_numpy(frames_of(batch, subject.input_size))
        started = time.perf_counter()
        with torch.inference_mode():
            outputs = function(frames.to(device))
            if name == "verdict":  # map and score come back to the host; the paper's figure leaves that out
                outputs = [output.cpu() for output in outputs]
            elif device.type == "cuda":
                torch.cuda.synchronize()
        return {name: 1e3 * (time.perf_counter() - started)}

    return run


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1], open_torch))
