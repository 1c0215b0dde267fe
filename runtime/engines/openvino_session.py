"""OpenVINO on the CPU: the engine contract, faster than ONNX Runtime in FP32, with bfloat16 and INT8 kernels."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from runtime.engines.compiled_cache import entry_name, read_entry, remove_entry, write_entry
from runtime.engines.cpu_session import BATCH_AXIS, CpuSession, Signature
from runtime.engines.external_data import refuse_external_data
from runtime.engines.onnxruntime_session import check_graph
from runtime.engines.session import CpuPrecision, Frames, Maps, Scores
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Sidecar

HINTS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names
CHECKS = 1  # what a file has to pass before it is compiled, see `_read`: a number more when that changes
# what OpenVINO does without where it is missing, and is not asked for here: reports of the import to a web service, and
# the conversion of models, which takes half of the import's time
LEFT_OUT = ("openvino_telemetry", "openvino.tools.ovc")
TYPES = {"u8": "uint8", "f32": "float32"}  # others keep OpenVINO's name


class OpenVinoSession(CpuSession):
    """An `.onnx` of the engine contract on OpenVINO's CPU plugin (see `runtime.engines.cpu_session.CpuSession`).

    `precision` "float32" is exact; "bfloat16" rounds the operands of FP32 products (8 bits of mantissa) and raises
    `UserError` on a CPU that has no such products. INT8 graphs run their Q/DQ parts in INT8 with either.

    A batch of one, a camera's frame, has a compiled graph of fixed shape, 6 % faster than one of any batch;
    other batches share one of any batch that is compiled when the first of them comes. With `keep` what was compiled is
    kept for the next start (`runtime.engines.compiled_cache`): it is found by the file's hash (`digest`; empty: not
    known yet), and only what passed every check of the file is kept.
    """

    library = "OpenVINO"

    def __init__(
        self,
        path: str | Path,
        threads: int | None = None,
        sidecar: Sidecar | None = None,
        precision: CpuPrecision = "float32",
        *,
        keep: bool = False,
        digest: str = "",
    ) -> None:
        self._core: Any = openvino_core()
        self._precision = precision
        if precision == "bfloat16":
            capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            check_bfloat16(capabilities, self._core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._requests: dict[bool, Any] = {}  # by whether the batch is one
        self._model: Any = None  # read when something has to be compiled
        self._keep, self._digest = keep, digest
        self._contents: list[Any] = []  # what was kept, in use by what was made of it
        super().__init__(path, threads, sidecar)
        if precision != "float32":
            self.device += f", {precision}"

    def _open(self, path: Path) -> Signature:
        self._path = path
        if self._keep and not self._digest:
            self._digest = sha256_of(path)
        kept = self._kept(1)
        if kept is not None:
            self._requests[True] = kept.create_infer_request()
            return {name: (kind, (BATCH_AXIS, *shape[1:])) for name, (kind, shape) in _signature(kept).items()}
        self._read(path)
        return _signature(self._model)

    def _read(self, path: Path) -> None:
        """Read the model, once it has passed all checks. Raises `UserError` where the file is not what it was."""
        refuse_external_data(path)
        check_graph(path)  # OpenVINO's own reader checks less
        self._model = self._core.read_model(str(path))
        self._check_weights(path)
        if self._keep and sha256_of(path) != self._digest:
            raise UserError(f"{path.name} must stay as it is while it is opened", "another file", "start again")

    def _check_weights(self, path: Path) -> None:
        """Refuse weights that are not finite: this library's ReLU and tanh turn NaN into an ordinary number."""
        for operation in self._model.get_ops():
            if operation.get_type_name() != "Constant" or not operation.get_element_type().is_real():
                continue
            if not np.isfinite(operation.get_data()).all():
                name = operation.get_friendly_name()
                raise UserError(f"{path.name} must hold finite weights", f"NaN or infinity in {name}", "train it again")

    def _infer(self, frames: Frames) -> tuple[Maps, Scores]:
        single = len(frames) == 1
        if single not in self._requests:
            self._requests[single] = self._compile(1 if single else -1)
        results = self._requests[single].infer({INPUT_NAME: frames})  # copies in and out
        return results[MAP_NAME], results[SCORE_NAME]

    def _compile(self, batch: int) -> Any:
        """Return a request of the graph for `batch` frames (-1: any number)."""
        compiled = self._kept(batch)
        if compiled is None:
            if self._model is None:
                self._read(self._path)
            self._model.reshape({INPUT_NAME: [batch, *self.frame_size, 3]})
            compiled = self._core.compile_model(self._model, "CPU", self._options)
            if self._keep:
                with suppress(RuntimeError):  # what cannot be written down is compiled each time
                    write_entry(self._entry(batch), _bytes_of(compiled))
        return compiled.create_infer_request()

    @property
    def _options(self) -> dict[str, Any]:
        return compile_options(self.threads, self._precision)

    def _kept(self, batch: int) -> Any:
        """Return the compiled graph for `batch` that an earlier start has kept, or None."""
        content = read_entry(self._entry(batch)) if self._keep else None
        if content is None:
            return None
        tensor = import_openvino().Tensor(np.frombuffer(content, np.uint8), shared_memory=True)  # no copy of it
        try:
            compiled = self._core.import_model(tensor, "CPU", self._options)
        except Exception:  # the library's errors share no base class below
            remove_entry(self._entry(batch))
            return None
        self._contents.append(tensor)
        return compiled

    def _entry(self, batch: int) -> str:
        """Return the name of the compiled graph among those that are kept: all that it depends on."""
        processor = [self._core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
        return entry_name(
            {
                "file": self._digest,
                "library": str(import_openvino().__version__),
                "processor": str(processor),
                "options": str(sorted(self._options.items())),
                "batch": str(batch),
                "checks": str(CHECKS),
            }
        )

    def _release(self) -> None:
        self._requests.clear()
        self._model = self._core = None
        self._contents.clear()  # last: weights lie in it

    def _version(self) -> str:
        return str(import_openvino().__version__).partition("-")[0]


def compile_options(threads: int, precision: CpuPrecision) -> dict[str, Any]:
    """Return OpenVINO's options for judging one frame soon.

    The precision is always named: left alone, OpenVINO takes bfloat16 (on ARM FP16) wherever the CPU has it.
    Threads are not bound to cores: two sessions would be bound to the same ones, and would shut out capture.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "ENABLE_CPU_PINNING": False,
    }


def check_bfloat16(capabilities: Sequence[str], cpu: str) -> None:
    """Raise `UserError` unless OpenVINO lists bfloat16 among what the CPU is good at."""
    if "BF16" not in capabilities:
        raise UserError(
            "bfloat16 needs a CPU with such products (AVX512_BF16, AMX)",
            f"{cpu.strip()} with {', '.join(capabilities)}",
            "leave bfloat16 out",
        )


def _bytes_of(compiled: Any) -> bytes:
    content = compiled.export_model()
    return content if isinstance(content, bytes) else bytes(content.getvalue())  # older releases give a stream


def _signature(graph: Any) -> Signature:
    tensors = [*graph.inputs, *graph.outputs]
    return {tensor.get_any_name(): (_type_of(tensor), _shape_of(tensor)) for tensor in tensors}


def _type_of(tensor: Any) -> str:
    name: str = tensor.get_element_type().get_type_name()
    return TYPES.get(name, name)


def _shape_of(tensor: Any) -> tuple[int | str, ...]:
    shape = tensor.get_partial_shape()
    if shape.rank.is_dynamic:
        return ("?",)
    return tuple(BATCH_AXIS if side.is_dynamic else side.get_length() for side in shape)


@cache
def openvino_core() -> Any:
    """Return the process's one OpenVINO core, which is never let go.

    A core gives the thread that makes it another stack for signals, and on its end gives back the one that it
    found: of two cores, the first one's, gone by then. The next signal, a Ctrl-C, would end the process in a crash.
    """
    return import_openvino().Core()


def import_openvino() -> Any:
    """Import OpenVINO without what is `LEFT_OUT`, which is made to look missing.

    Raises `UserError` if OpenVINO is not installed.
    """
    hidden = [name for name in LEFT_OUT if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say "cannot be imported"
    try:
        import openvino
    except ImportError as error:
        raise UserError("OpenVINO must be installed", str(error), "pip install openvino") from None
    finally:
        for name in hidden:
            del sys.modules[name]
    return openvino
