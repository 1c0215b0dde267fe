"""The report's worker for what torch runs: our own model eagerly, and the baselines PaDiM and SPADE.

`runtime.report` starts it as a process of its own, so that the runtime imports no torch (see `runtime.report.worker`).
On a machine with a CUDA device the modules run there.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from export.bench.baselines import BASELINES
from export.bench.baselines.common import Features
from export.model.cflow import DetectorModule
from export.model.checkpoint import load_checkpoint
from runtime.common.errors import UserError
from runtime.common.machine import available_cores
from runtime.engines.any_onnx import open_onnxruntime, open_openvino
from runtime.engines.backends import choose_backend
from runtime.report.worker import ENGINES, Opened, RunBatch, StageMs, Subject, frames_of, serve

ENGINE = "PyTorch"
Function = Callable[[Tensor], Sequence[Tensor]]


def open_torch(subject: Subject) -> Opened:
    """Open a checkpoint ("eager") or a baseline ("padim", "spade") of `subject.what`."""
    threads = available_cores() if subject.threads is None else subject.threads
    torch.set_num_threads(threads)
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    path, engine = Path(next(iter(subject.paths.values()))), ENGINE
    functions: dict[str, Function]
    if subject.what == "eager":
        checkpoint = load_checkpoint(path)
        detector = DetectorModule(checkpoint.model, checkpoint.constants).eval().to(device)
        functions = {"network": detector.model.log_likelihoods, "verdict": detector}
    elif subject.what in BASELINES:
        baseline = BASELINES[subject.what].load(path).to(device)
        if subject.features is not None and not on_gpu:
            library, baseline.features = _features(subject, baseline.config.crop, threads)
            engine = f"{library} + {ENGINE}"
        functions = {"verdict": baseline}
    else:
        raise UserError(f"a baseline is one of {', '.join(BASELINES)}", repr(subject.what))
    runs = {name: _timed(name, functions[name], subject, device) for name in subject.paths}
    where = torch.cuda.get_device_name(device) if on_gpu else f"CPU, {threads} threads"
    return Opened(runs, f"{ENGINE} {torch.__version__} {where}", engine, max_batch=32)


def _features(subject: Subject, crop: tuple[int, int], threads: int) -> tuple[str, Features]:
    """Return the library that judges our own models, and in it the baseline's encoder: none is slow for want of one."""
    assert subject.features is not None
    library = choose_backend(subject.backend, subject.precision)
    if library == "openvino":
        run = open_openvino(subject.features, threads, subject.precision, (1, 3, *crop))
    else:
        run = open_onnxruntime(subject.features, threads)
    return ENGINES[library], lambda images: [torch.from_numpy(tap) for tap in run(images.contiguous().numpy())]


def _timed(name: str, function: Function, subject: Subject, device: torch.device) -> RunBatch:
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
