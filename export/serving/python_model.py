"""The model that a Triton server's Python backend runs, as `model.py` in each version's folder: nothing else is needed.

It opens the engine that lies beside it: by this kit where it can be imported there, and then with the very checks and
libraries of a line (`runtime.load`), else by ONNX Runtime plainly.

A Python backend that was built for NumPy 1 (Triton 2.51) answers with tensors of no bytes under NumPy 2, and says that
all went well; nothing here can see it. So NumPy 2 is refused unless the configuration says that the server takes it.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy

INPUT, OUTPUTS = "frames", ("anomaly_map", "image_score")


class TritonPythonModel:
    """Judges uint8 (B, H, W, 3) frames; what cannot be trusted is refused at load, or is an error in the answer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the engine. Raises `RuntimeError` where it is not the one that the configuration names."""
        said = json.loads(args["model_config"]).get("parameters", {})
        parameters = {key: value["string_value"] for key, value in said.items()}
        sys.path[:0] = [folder for folder in parameters.get("python_path", "").split(":") if folder]
        import triton_python_backend_utils as pb_utils

        self._utils = pb_utils
        if int(numpy.__version__.split(".")[0]) > 1 and "numpy_2" not in parameters:
            cure = "install numpy<2 in the server's Python, or write the repository with --numpy-2 for a newer server"
            raise RuntimeError(f"the server's Python must have NumPy 1; found NumPy {numpy.__version__}; {cure}")
        folder = Path(args["model_repository"], args["model_version"])
        [path] = [found for found in folder.iterdir() if found.suffix in (".onnx", ".plan")]
        self._sha256 = parameters[f"engine_sha256_{args['model_version']}"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != self._sha256:
            raise RuntimeError(f"{path.name} must be the file that config.pbtxt names, sha256 {self._sha256[:12]}")
        threads = int(parameters["threads"]) if "threads" in parameters else None
        self._run, self._close, by = _opened(path, parameters.get("library", "auto"), threads)
        pb_utils.Logger.log_info(f"{path.name} {self._sha256[:12]} is run by {by}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Judge the frames of each request and return an answer for each."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        utils = self._utils
        try:
            wanted = json.loads(request.parameters() or "{}").get("engine_sha256", self._sha256)
            if wanted != self._sha256:
                raise ValueError(f"this is engine {self._sha256[:12]}, and {wanted[:12]} was asked for")
            frames = utils.get_input_tensor_by_name(request, INPUT).as_numpy()
            found = zip(OUTPUTS, self._run(frames), strict=True)
            tensors = [utils.Tensor(name, numpy.ascontiguousarray(array)) for name, array in found]
            return utils.InferenceResponse(output_tensors=tensors)
        except Exception as error:  # the client has to know, and the next request may go well
            return utils.InferenceResponse(error=utils.TritonError(f"{type(error).__name__}: {error}"))

    def finalize(self) -> None:
        """Release the engine."""
        self._close()


def _opened(path: Path, library: Any, threads: int | None) -> tuple[Any, Any, str]:
    """Return what judges frames, what closes it, and what it is, in words."""
    try:
        from runtime.detector import load
    except ImportError:
        return _plain(path, library, threads)
    detector = load(path, threads=threads, backend=library)
    return detector.session.run, detector.close, f"cflow-edge with {detector.session.device}"


def _plain(path: Path, library: str, threads: int | None) -> tuple[Any, Any, str]:
    """Open an ONNX with ONNX Runtime alone, its threads asleep when idle."""
    if path.suffix != ".onnx" or library not in ("auto", "onnxruntime"):
        raise RuntimeError(f"{path.name} by {library} needs cflow-edge in the Python of this server, or --python-path")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(frames: Any) -> Any:
        return session.run(list(OUTPUTS), {INPUT: frames})

    return run, lambda: None, f"ONNX Runtime {onnxruntime.__version__} alone"
