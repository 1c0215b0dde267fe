"""A real MLServer with an engine in it: a server of KServe's protocol that is no Triton."""

import importlib.metadata
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.environments import environment
from tests.support.triton_server import answers, free_ports
from tests.support.waiting import wait_until

SERVER = "mlserver==1.7.1"
MODEL = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

OUTPUTS = ("anomaly_map", "image_score")


class Engine(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = self.settings.parameters.uri
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        found = self.session.run(list(OUTPUTS), {"frames": NumpyCodec.decode_input(payload.inputs[0])})
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(OUTPUTS, found)]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
"""


@contextmanager
def mlserver(engine: Path, size: tuple[int, int], folder: Path) -> Iterator[dict[str, str]]:
    """Serve the ONNX at `engine` as `cable`; yield the server's addresses by kind."""
    wanted = [SERVER, f"onnxruntime=={importlib.metadata.version('onnxruntime')}"]
    venv = environment("mlserver", wanted)
    http, grpc, metrics = free_ports(3)
    (folder / "cable").mkdir(parents=True)
    (folder / "cable" / "engine_model.py").write_text(MODEL)
    tensors = {"frames": ("UINT8", [*size, 3]), "anomaly_map": ("FP32", list(size)), "image_score": ("FP32", [])}
    told = [{"name": name, "datatype": kind, "shape": [-1, *shape]} for name, (kind, shape) in tensors.items()]
    model = {"name": "cable", "implementation": "engine_model.Engine", "parameters": {"uri": str(engine)}}
    settings = {"host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "cable" / "model-settings.json").write_text(
        json.dumps({**model, "inputs": told[:1], "outputs": told[1:]})
    )
    (folder / "settings.json").write_text(json.dumps({**settings, "parallel_workers": 0}))
    environ = {**os.environ, "PYTHONPATH": str(folder / "cable")}
    with (folder / "log").open("wb") as log:
        words = [str(venv / "bin" / "mlserver"), "start", str(folder)]
        process = subprocess.Popen(words, env=environ, stdout=log, stderr=log, start_new_session=True)

    def ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        return answers(f"http://127.0.0.1:{http}/v2/models/cable/ready")

    try:
        wait_until(ready, f"MLServer does not start: {folder}")
        yield {"grpc": f"grpc://127.0.0.1:{grpc}/cable", "http": f"http://127.0.0.1:{http}/cable"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
