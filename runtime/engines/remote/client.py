"""tritonclient's two clients, for gRPC and for HTTP, as one: what goes wrong in either is a `Fault` of one line.

A client belongs to the thread that made it, for that of HTTP cannot be used by another one.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from runtime.common.errors import UserError
from runtime.common.files import read_secret_file
from runtime.engines.remote.address import RemoteEngine
from runtime.engines.remote.options import ServerOptions
from runtime.engines.session import Frames
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME

CONNECT_S = 2.0  # that a connection, and a question that no frame waits for, may take
LARGEST = 2**31 - 1  # bytes of a message
LONGEST = 300  # characters of a reason
INSTALL = "pip install 'cflow-edge[kserve]'"
Found = TypeVar("Found")
Json = dict[str, Any]


class Fault(Exception):
    """The server does not answer, or answers that it cannot; the text is one line."""


class NotOffered(Fault):
    """The server has no such call: it speaks the protocol, and is no Triton."""


class Client:
    """A connection to the server of `engine`, with answers within `timeout_s`. Raises `UserError` and `Fault`."""

    def __init__(self, engine: RemoteEngine, options: ServerOptions, timeout_s: float) -> None:
        self._engine, self._timeout_s = engine, timeout_s
        self._grpc = engine.scheme.startswith("grpc")
        self._library = _library(self._grpc)
        self._patience: Json = {"client_timeout": CONNECT_S} if self._grpc else {}
        _check_files(options)
        opening = _open_grpc if self._grpc else _open_http
        self._client: Any = _told(lambda: opening(self._library, engine, options, timeout_s))
        if authorization := _authorization(self._library, engine, options):
            self._client.register_plugin(authorization)

    def ready(self, version: str) -> bool:
        """Return whether the server says that the model is ready."""
        return bool(_told(lambda: self._client.is_model_ready(self._engine.model, version, **self._patience)))

    def metadata(self, version: str) -> Json:
        """Return the names, types and shapes of the model's tensors, and its versions."""
        more = {"as_json": True} if self._grpc else {}
        found = _told(lambda: self._client.get_model_metadata(self._engine.model, version, **more, **self._patience))
        return _object(found)

    def config(self, version: str) -> Json:
        """Return the model's configuration. Raises `NotOffered` where the server is no Triton."""
        more = {"as_json": True} if self._grpc else {}
        found = _told(lambda: self._client.get_model_config(self._engine.model, version, **more, **self._patience))
        return _object(_object(found)["config"] if self._grpc else found)

    def register(self, name: str, key: str, size: int) -> None:
        """Let the server open a region of shared memory."""
        _told(lambda: self._client.register_system_shared_memory(name, key, size, **self._patience))

    def unregister(self, name: str) -> None:
        """Let the server close a region of shared memory; without effect where it has none of that name."""
        _told(lambda: self._client.unregister_system_shared_memory(name, **self._patience))

    def regions(self) -> dict[str, str]:
        """Return the keys of the server's regions of shared memory by name."""
        more = {"as_json": True} if self._grpc else {}
        found: Any = _told(lambda: self._client.get_system_shared_memory_status(**more, **self._patience))
        if self._grpc:
            return {name: str(each.get("key", "")) for name, each in found.get("regions", {}).items()}
        return {str(each["name"]): str(each["key"]) for each in found}

    def infer(self, request: "Request", timeout_s: float) -> "Answer":
        """Ask for map and score, and wait for them."""
        tensor = self._library.InferInput(INPUT_NAME, list(request.shape), "UINT8")
        if isinstance(request.frames, str):
            tensor.set_shared_memory(request.frames, int(np.prod(request.shape)))
        else:
            tensor.set_data_from_numpy(request.frames)
        outputs = [self._library.InferRequestedOutput(name) for name in (MAP_NAME, SCORE_NAME)]
        more: Json = {"client_timeout": max(timeout_s, 1e-3)} if self._grpc else {}
        if request.parameters:
            more["parameters"] = dict(request.parameters)
        model = self._engine.model
        result: Any = _told(
            lambda: self._client.infer(model, [tensor], request.version, outputs, request_id=request.number, **more)
        )
        return Answer(result, self._grpc)

    def close(self) -> None:
        """End the connection."""
        _told(self._client.close)


class Request:
    """Frames for the server: an array (B, H, W, 3), or the name of the region where they lie; `number` comes back."""

    def __init__(
        self, frames: Frames | str, shape: tuple[int, ...], version: str, number: str, parameters: Mapping[str, str]
    ) -> None:
        self.frames, self.shape, self.version = frames, shape, version
        self.number, self.parameters = number, parameters


class Answer:
    """What a server sent back, not looked at yet."""

    def __init__(self, result: Any, grpc: bool) -> None:
        self._result = result
        response: Any = result.get_response()
        self.number = str(response.id if grpc else response.get("id", ""))
        self.version = str(response.model_version if grpc else response.get("model_version", ""))

    def floats(self, name: str) -> NDArray[np.float32]:
        """Return an output. Raises `Fault` where it is missing, of another type, or not as long as its shape says."""
        try:
            found = self._result.as_numpy(name)
        except Exception as error:  # NumPy's and the library's, for bytes that are not what they are said to be
            raise Fault(f"the server's {name} cannot be read: {_line(error)}") from None
        if found is None or found.dtype != np.float32:
            raise Fault(f"the server's {name} must be float32, not {'missing' if found is None else found.dtype}")
        return np.array(found)  # the caller's own


def _told(ask: Callable[[], Found]) -> Found:
    """Return what `ask` returns; whatever its library raises, and no base class is common to that, is a `Fault`."""
    try:
        return ask()
    except UserError:
        raise
    except Exception as error:
        status = str(getattr(error, "status", lambda: "")() or "")
        fault = NotOffered if status in ("StatusCode.UNIMPLEMENTED", "404", "405", "501") else Fault
        raise fault(_line(error)) from None


def _line(error: Exception) -> str:
    text = getattr(error, "message", lambda: "")() or str(error) or type(error).__name__
    return " ".join(str(text).split())[:LONGEST]


def _object(found: Any) -> Json:
    if not isinstance(found, dict):
        raise Fault(f"the server must answer with an object, not {type(found).__name__}")
    return found


def _library(grpc: bool) -> Any:
    try:
        if grpc:
            import tritonclient.grpc as library
        else:
            import tritonclient.http as library
    except ImportError as error:
        raise UserError("an engine on a server needs tritonclient", str(error), INSTALL) from None
    return library


def _open_grpc(library: Any, engine: RemoteEngine, options: ServerOptions, timeout_s: float) -> Any:
    """Open a channel that tries again after tenths of a second where the server was away, not after minutes."""
    arguments = [
        ("grpc.max_send_message_length", LARGEST),
        ("grpc.max_receive_message_length", LARGEST),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),  # a new client tries anew
        ("grpc.enable_http_proxy", 0),  # a plant's server is in its own network
    ]
    if not engine.secure:
        return library.InferenceServerClient(engine.target, channel_args=arguments)
    names = (str(path) if path else None for path in (options.ca, options.key, options.certificate))
    return library.InferenceServerClient(engine.target, False, True, *names, channel_args=arguments)


def _open_http(library: Any, engine: RemoteEngine, options: ServerOptions, timeout_s: float) -> Any:
    words: Json = {"connection_timeout": min(CONNECT_S, timeout_s), "network_timeout": timeout_s}
    if engine.secure:
        context = _tls(options)
        words |= {"ssl": True, "ssl_context_factory": lambda: context}
    return library.InferenceServerClient(engine.target, **words)


def _check_files(options: ServerOptions) -> None:
    """Raise `UserError` for a file that is not there: the libraries tell it in many lines."""
    named = {"ca": options.ca, "cert": options.certificate, "key": options.key, "token": options.token}
    for name, path in named.items():
        if path is not None and not path.is_file():
            raise UserError(f"--server-{name} must be a file", f"no file {path}", "check the path")
    if (options.certificate is None) != (options.key is None):
        raise UserError("--server-cert and --server-key belong together", "one of them", "give both")


def _tls(options: ServerOptions) -> Any:
    from gevent import ssl

    context = ssl.create_default_context(cafile=str(options.ca) if options.ca else None)
    if options.certificate is not None:
        context.load_cert_chain(options.certificate, options.key)
    return context


def _authorization(library: Any, engine: RemoteEngine, options: ServerOptions) -> Any:
    """Return what gives each request its credentials; None where there are none."""
    if options.token is not None:
        token = read_secret_file(options.token).strip()

        class Bearer(library.InferenceServerClientPlugin):  # type: ignore[misc]
            def __call__(self, request: Any) -> None:
                request.headers["authorization"] = f"Bearer {token}"

        return Bearer()
    if not engine.user:
        return None
    import base64

    both = base64.b64encode(f"{engine.user}:{engine.password}".encode()).decode()

    class Basic(library.InferenceServerClientPlugin):  # type: ignore[misc]
        def __call__(self, request: Any) -> None:
            request.headers["authorization"] = f"Basic {both}"

    return Basic()
