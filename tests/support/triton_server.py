"""The real Triton server, as the wheel of nvidia-pytriton carries it, in a virtual environment of its own.

Its Python backend wants NumPy 1, so that it cannot live beside this project's packages.

    python -m tests.support.triton_server REPOSITORY     # says its addresses and runs until Ctrl-C
"""

import contextlib
import importlib.metadata
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environments import environment
from tests.support.waiting import wait_until

SERVER = "nvidia-pytriton==0.7.0"  # Triton 2.51
BESIDE = (
    "numpy==1.26.4",
    "pillow==11.3.0",
    "simplejpeg==1.8.2",
    "packaging==25.0",
    "flatbuffers==25.2.10",
    "protobuf==5.29.5",
)


def _environment() -> Path:
    """Return the folder of the server's environment; skip the test where there can be none."""
    library = Path(sysconfig.get_config_var("LIBDIR") or "", sysconfig.get_config_var("LDLIBRARY") or "")
    if sys.platform != "linux" or not (3, 10) <= sys.version_info < (3, 13) or library.suffix == ".a":
        pytest.skip("Triton's Python backend needs Linux, and CPython 3.10 to 3.12 with a shared library")
    onnxruntime = f"onnxruntime=={importlib.metadata.version('onnxruntime')}"
    return environment("triton", [SERVER, *BESIDE, onnxruntime], "--no-deps")


class Triton:
    """A Triton server of `repository`, at ports of its own; it can be killed and started again."""

    def __init__(self, repository: Path, folder: Path, *words: str) -> None:
        self._venv, self._repository, self._folder, self._words = _environment(), repository, folder, words
        self.http, self.grpc, self._metrics = free_ports(3)
        [site] = self._venv.glob("lib/python3.*/site-packages")
        self._site = site
        self._backends = folder / "backends"
        kept = site / "pytriton" / "tritonserver"
        shutil.copytree(kept / "backends" / "python", self._backends / "python")
        stub = kept / "python_backend_stubs" / f"3.{sys.version_info[1]}" / "triton_python_backend_stub"
        shutil.copy(stub, self._backends / "python")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self._folder / "triton.log").read_text(errors="replace")

    def start(self) -> "Triton":
        """Start it and wait until all models are ready."""
        words = [str(self._site / "pytriton" / "tritonserver" / "bin" / "tritonserver"), *self._words]
        words += ["--model-repository", str(self._repository), "--backend-directory", str(self._backends)]
        for name, port in (("http", self.http), ("grpc", self.grpc), ("metrics", self._metrics)):
            words += [f"--{name}-port", str(port), f"--{name}-address", "127.0.0.1"]
        libraries = [str(self._site / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
        path = f"{self._venv / 'bin'}{os.pathsep}{os.environ['PATH']}"  # its stub takes the packages of that Python
        environ = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries), "PATH": path}
        environ.pop("PYTHONPATH", None)
        with (self._folder / "triton.log").open("ab") as log:
            self._process = subprocess.Popen(
                words, env=environ, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )  # its stub finds modules where it is started, too
        wait_until(self._ready, f"Triton does not start: {self._folder}")
        return self

    def _ready(self) -> bool:
        assert self._process is not None and self._process.poll() is None, self.log
        return answers(f"http://127.0.0.1:{self.http}/v2/health/ready")

    def kill(self) -> None:
        """Kill it, and its stubs, at once."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            _sweep()

    @contextlib.contextmanager
    def running(self) -> Iterator["Triton"]:
        """Be there, until left."""
        try:
            yield self.start()
        finally:
            self.kill()


def main() -> None:
    """Serve a repository until Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a script's background job has Ctrl-C switched off
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, Triton(Path(sys.argv[1]), Path(folder)).running() as server:
        print(f"grpc://127.0.0.1:{server.grpc}/MODEL http://127.0.0.1:{server.http}/MODEL", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


def _sweep() -> None:
    """Remove what Python backends that were killed leave in shared memory, but for those of others' that still run."""
    used = {path.name for path in _mapped()}
    for path in Path("/dev/shm").glob("triton_python_backend_shm_region_*"):
        if path.name not in used:
            path.unlink(missing_ok=True)


def _mapped() -> Iterator[Path]:
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            for line in maps.read_text().splitlines():
                if "triton_python_backend_shm_region_" in line:
                    yield Path(line.split()[5])


def answers(address: str) -> bool:
    """Return whether a server answers that all is well."""
    with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(address, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def free_ports(number: int) -> list[int]:
    """Return ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    main()
