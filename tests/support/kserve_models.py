"""What a small server of KServe's protocol serves: a model repository by Triton's own schema, run by ONNX Runtime."""

import json
import mmap
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import model_config_pb2


class Refused(Exception):
    """The server cannot do what it is asked for; `missing`: it has not got it."""

    def __init__(self, text: str, missing: bool = False) -> None:
        super().__init__(text)
        self.missing = missing


@dataclass
class Asked:
    """A request: its id, the version and the parameters that it named, and whether its frames came by shared memory."""

    id: str
    version: str
    parameters: dict[str, str]
    shared: bool


@dataclass
class Reply:
    """An answer as it goes out; wrong where the server misbehaves."""

    id: str
    version: str
    outputs: list[tuple[str, str, list[int], bytes]] = field(default_factory=list)  # name, type, shape, bytes


class Models:
    """The models of `repository`; `behaviour` says how requests are answered from now on.

    "right", or what a server may get wrong: "empty", "short", "shape", "nan", "type", "error", "late", "id", "version",
    "missing". `triton` False offers the protocol alone: no configuration, no shared memory.
    """

    def __init__(self, repository: Path, triton: bool = True) -> None:
        self.repository, self.triton = repository, triton
        self.behaviour = "right"
        self.late_s = 3.0  # far beyond a test's deadline
        self.asked: list[Asked] = []
        self.regions: dict[str, tuple[str, int]] = {}
        self.authorization = ""  # what each request must bear
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._sessions: dict[Path, Any] = {}

    def config(self, model: str) -> model_config_pb2.ModelConfig:
        """Return a model's configuration, parsed by the schema."""
        path = self.repository / model / "config.pbtxt"
        if not path.is_file():
            raise Refused(f"unknown model {model}", missing=True)
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())

    def config_json(self, model: str) -> dict[str, Any]:
        """Return the same as HTTP has it."""
        return MessageToDict(self.config(model), preserving_proto_field_name=True)

    def versions(self, model: str) -> list[str]:
        """Return the versions that can be asked for."""
        config = self.config(model)
        found = sorted(int(path.name) for path in (self.repository / model).iterdir() if path.name.isdigit())
        return [str(number) for number in found[-config.version_policy.latest.num_versions :]]

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """Return the model's tensors as the protocol describes them."""
        config = self.config(model)
        self.folder(model, version)
        first = [-1] if config.max_batch_size else []

        def tensor(one: Any) -> dict[str, Any]:
            kind = model_config_pb2.DataType.Name(one.data_type).removeprefix("TYPE_")
            return {"name": one.name, "datatype": kind, "shape": [*first, *one.dims]}

        return {
            "name": model,
            "versions": self.versions(model),
            "platform": config.backend,
            "inputs": [tensor(one) for one in config.input],
            "outputs": [tensor(one) for one in config.output],
        }

    def folder(self, model: str, version: str) -> Path:
        """Return a version's folder."""
        versions = self.versions(model)
        version = version or versions[-1]
        if version not in versions:
            raise Refused(f"{model} has no version {version}", missing=True)
        return self.repository / model / version

    def register(self, name: str, key: str, size: int) -> None:
        """Open a region of shared memory, as a process of its own would."""
        if not Path(f"/dev/shm{key}").exists():
            raise Refused(f"unable to open shared memory {key}")
        if name in self.regions:
            raise Refused(f"shared memory region {name} is there already")
        self.regions[name] = (key, size)

    def read(self, name: str, size: int) -> bytes:
        """Return the first bytes of a region."""
        if name not in self.regions:
            raise Refused(f"unknown shared memory region {name}")
        with Path(f"/dev/shm{self.regions[name][0]}").open("rb") as file:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:size]

    def infer(self, model: str, asked: Asked, frames: np.ndarray) -> Reply:
        """Judge frames, as well as the behaviour allows."""
        with self._lock:
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self._reply(model, asked, frames)
        finally:
            with self._lock:
                self._at_once -= 1

    def _reply(self, model: str, asked: Asked, frames: np.ndarray) -> Reply:
        behaviour = self.behaviour
        if behaviour == "late":
            time.sleep(self.late_s)
        if behaviour == "error":
            raise Refused("the model has failed\nin two lines")
        folder = self.folder(model, asked.version)
        config = self.config(model)
        sha256 = config.parameters[f"engine_sha256_{folder.name}"].string_value
        if asked.parameters.get("engine_sha256", sha256) != sha256:
            raise Refused("this is another engine")
        if config.max_batch_size and len(frames) > config.max_batch_size:
            raise Refused("the batch is too large")
        maps, scores = self._session(folder).run(["anomaly_map", "image_score"], {"frames": frames})
        if behaviour == "nan":
            scores = np.full_like(scores, np.nan)
        reply = Reply(asked.id, folder.name)
        for name, array in (("anomaly_map", maps), ("image_score", scores.reshape(-1, 1))):
            if not (behaviour == "missing" and name == "image_score"):
                reply.outputs.append(_output(name, array, behaviour))
        reply.id = "another" if behaviour == "id" else reply.id
        reply.version = "99" if behaviour == "version" else reply.version
        return reply

    def _session(self, folder: Path) -> Any:
        with self._lock:
            if folder not in self._sessions:
                options = ort.SessionOptions()
                options.intra_op_num_threads = 1
                [path] = folder.glob("*.onnx")
                self._sessions[folder] = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
            return self._sessions[folder]


def _output(name: str, array: np.ndarray, behaviour: str) -> tuple[str, str, list[int], bytes]:
    """Return an output as it goes out, wrong in what `behaviour` names."""
    data, kind, shape = array.tobytes(), "FP32", list(array.shape)
    if behaviour == "empty":
        data = b""
    elif behaviour == "short":
        data = data[:-4]
    elif behaviour == "shape" and name == "anomaly_map":
        shape = [*shape[:-1], shape[-1] // 2, 2]
    elif behaviour == "type":
        kind = "INT32"
    return name, kind, shape, data


def read_json(data: bytes) -> dict[str, Any]:
    """Return the object that a body holds."""
    found = json.loads(data)
    assert isinstance(found, dict)
    return found
