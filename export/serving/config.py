"""`config.pbtxt`: what a Triton server must know of a detector, in the terms of its published `ModelConfig`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from export.serving.text_format import Message, Value, Word, text_of
from runtime.common.errors import UserError
from runtime.common.text_table import plain_size
from runtime.engines.remote.parameters import (
    CHECKS_ENGINE,
    SCHEMA,
    SCHEMA_KEY,
    engine_sha256_key,
    sidecar_key,
    sidecar_sha256_key,
)
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME, Artefact, Sidecar

Backend = Literal["tensorrt", "onnxruntime", "openvino", "python"]
BACKENDS: tuple[Backend, ...] = ("tensorrt", "onnxruntime", "openvino", "python")
FILES = {"tensorrt": "model.plan", "onnxruntime": "model.onnx", "openvino": "model.onnx"}  # in a version's folder
PYTHON_MODEL = "model.py"


@dataclass(frozen=True)
class Options:
    """How a server runs a model.

    `batch` is the most frames of one execution, `instances` how many run at once, `loaded` how many versions, the
    newest, can be asked for. `delay_us` is how long the server waits for more frames. `library`, `threads` and
    `python_path` are for the Python backend: as `runtime.load` has them, and folders where it finds its packages.
    """

    backend: Backend
    batch: int = 1
    instances: int = 1
    loaded: int = 2
    delay_us: int = 0
    library: str = "auto"
    threads: int | None = None
    python_path: tuple[str, ...] = ()
    numpy_2: bool = False  # the server's Python backend is known to take NumPy 2


@dataclass(frozen=True)
class Version:
    """A version's number, its sidecar as it was read and as text, and what the sidecar says of its engine file."""

    number: int
    sidecar: Sidecar
    text: str
    sha256: str  # of the text
    artefact: Artefact

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of its frames and of its map."""
        return self.sidecar.engine_frame_size, self.sidecar.input_size


def config_text(name: str, versions: Sequence[Version], options: Options) -> str:
    """Return the `config.pbtxt` of the model `name` with all its `versions`, the newest last.

    Raises `UserError` for versions whose frames or maps are of different sizes: a model has one signature.
    """
    newest = versions[-1]
    for version in versions:
        if version.shapes != newest.shapes:
            expected = f"all versions of {name} must take frames of {plain_size(newest.shapes[0])}"
            found = f"{plain_size(version.shapes[0])} in version {version.number}"
            raise UserError(expected, found, "give the new one another --name")
    fixed = newest.artefact.dla_core is not None  # such a plan is built for one batch
    batch = 0 if fixed else options.batch
    fields: list[tuple[str, Value]] = [("name", name), ("backend", options.backend), ("max_batch_size", batch)]
    if options.backend in FILES:
        fields.append(("default_model_filename", FILES[options.backend]))
    first = (newest.sidecar.batch,) if fixed else ()
    frame = (*first, *newest.shapes[0], 3)
    fields += [
        ("input", _tensor(INPUT_NAME, "TYPE_UINT8", frame)),
        ("output", _tensor(MAP_NAME, "TYPE_FP32", (*first, *newest.shapes[1]))),
        ("output", _score(first)),
        ("version_policy", [("latest", [("num_versions", options.loaded)])]),
        ("instance_group", _instances(options)),
        ("model_warmup", _warmup(frame, batch)),
    ]
    if batch > 1:
        fields.append(("dynamic_batching", [("max_queue_delay_microseconds", options.delay_us)]))
    parameters = _parameters(versions, options)
    fields += [("parameters", [("key", key), ("value", [("string_value", value)])]) for key, value in parameters]
    return text_of(fields)


def _tensor(name: str, kind: str, shape: Sequence[int]) -> Message:
    return [("name", name), ("data_type", Word(kind)), *(("dims", side) for side in shape)]


def _score(first: Sequence[int]) -> Message:
    """Return the score's output: one number a frame. A shape of nothing but the batch is said by a reshape."""
    if first:
        return _tensor(SCORE_NAME, "TYPE_FP32", first)
    return [*_tensor(SCORE_NAME, "TYPE_FP32", (1,)), ("reshape", [])]


def _instances(options: Options) -> Message:
    """Return how many instances there are; where a plan runs is the server's to say, an ONNX runs where it can."""
    kind = {"tensorrt": "KIND_GPU", "onnxruntime": "KIND_AUTO"}.get(options.backend, "KIND_CPU")
    return [("count", options.instances), ("kind", Word(kind))]


def _warmup(frame: Sequence[int], batch: int) -> Message:
    black: Message = [("data_type", Word("TYPE_UINT8")), *(("dims", side) for side in frame), ("zero_data", True)]
    inputs: Message = [("key", INPUT_NAME), ("value", black)]
    return [("name", "one black frame"), ("batch_size", min(batch, 1)), ("inputs", inputs)]


def _parameters(versions: Sequence[Version], options: Options) -> list[tuple[str, str]]:
    found = [(SCHEMA_KEY, SCHEMA)]
    if options.backend == "python":
        found += [(CHECKS_ENGINE, "yes"), ("library", options.library)]
        if options.threads is not None:
            found.append(("threads", str(options.threads)))
        if options.numpy_2:
            found.append(("numpy_2", "yes"))
        if options.python_path:
            found.append(("python_path", ":".join(options.python_path)))
    for version in versions:
        number = str(version.number)
        found.append((engine_sha256_key(number), version.artefact.sha256))
        found.append((sidecar_sha256_key(number), version.sha256))
        found.append((sidecar_key(number), version.text))
    return found
