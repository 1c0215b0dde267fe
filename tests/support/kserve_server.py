"""A second server of KServe's protocol, version 2, by gRPC and by HTTP; it shares no code with the client.

python -m tests.support.kserve_server REPOSITORY grpc PORT     # as a process that can be killed
"""

import http.server
import json
import ssl
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.kserve_models import Asked, Models, Refused, read_json

LENGTH = "Inference-Header-Content-Length"


class Tls(NamedTuple):
    """PEM files: of a server's certificate and key, and of who signs its clients'."""

    certificate: Path
    key: Path
    clients: Path


class GrpcServer:
    """Serves `models` at 127.0.0.1:`port` (0: any) until `stop`; with `tls` to those who show a certificate."""

    def __init__(self, models: Models, port: int = 0, tls: Tls | None = None) -> None:
        self.models, self._scheme = models, "grpcs" if tls else "grpc"
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8),
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(models), self._server)
        address = f"127.0.0.1:{port}"
        if tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            own = (tls.key.read_bytes(), tls.certificate.read_bytes())
            given = grpc.ssl_server_credentials([own], tls.clients.read_bytes(), require_client_auth=True)
            self.port = self._server.add_secure_port(address, given)
        assert self.port
        self._server.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.stop(0).wait()


class _Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    def __init__(self, models: Models) -> None:
        self._models = models

    def _do(self, context: Any, do: Any) -> Any:
        given = dict(context.invocation_metadata()).get("authorization", "")
        if self._models.authorization and given != self._models.authorization:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who is there?")
        try:
            return do()
        except Refused as refused:
            context.abort(grpc.StatusCode.NOT_FOUND if refused.missing else grpc.StatusCode.INTERNAL, str(refused))

    def _triton(self, context: Any) -> None:
        if not self._models.triton:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "this is no Triton")

    def ModelReady(self, request: Any, context: Any) -> Any:
        self._do(context, lambda: self._models.folder(request.name, request.version))
        return service_pb2.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        return self._do(
            context, lambda: service_pb2.ModelMetadataResponse(**self._models.metadata(request.name, request.version))
        )

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._triton(context)
        return self._do(context, lambda: service_pb2.ModelConfigResponse(config=self._models.config(request.name)))

    def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        self._triton(context)
        self._do(context, lambda: self._models.register(request.name, request.key, request.byte_size))
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        self._triton(context)
        self._models.regions.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        self._triton(context)
        status = service_pb2.SystemSharedMemoryStatusResponse
        regions = {
            name: status.RegionStatus(name=name, key=key, byte_size=size)
            for name, (key, size) in self._models.regions.items()
        }
        return status(regions=regions)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        return self._do(context, lambda: self._infer(request))

    def _infer(self, request: Any) -> Any:
        [tensor] = request.inputs
        shape = list(tensor.shape)
        region = tensor.parameters["shared_memory_region"].string_param if tensor.parameters else ""
        data = self._models.read(region, int(np.prod(shape))) if region else request.raw_input_contents[0]
        parameters = {key: value.string_param for key, value in request.parameters.items()}
        asked = Asked(request.id, request.model_version, parameters, bool(region))
        reply = self._models.infer(request.model_name, asked, np.frombuffer(data, np.uint8).reshape(shape))
        response = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=reply.version, id=reply.id
        )
        for name, kind, sides, content in reply.outputs:
            response.outputs.add(name=name, datatype=kind, shape=sides)
            response.raw_output_contents.append(content)
        return response


class HttpServer:
    """Serves `models` by HTTP, as `GrpcServer` does by gRPC."""

    def __init__(self, models: Models, port: int = 0, tls: Tls | None = None) -> None:
        self.models, self._scheme = models, "https" if tls else "http"

        class Handler(_Handler):
            held = models

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.clients))
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(tls.certificate, tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    held: Models
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes, head: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if head is not None:
            self.send_header(LENGTH, str(head))
        self.end_headers()
        self.wfile.write(body)

    def _do(self, do: Any) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            if self.held.authorization and self.headers.get("authorization") != self.held.authorization:
                self._send(401, b'{"error": "who is there?"}')
                return
            answer, head = do(body)
            self._send(200, answer, head)
        except Refused as refused:
            self._send(404 if refused.missing else 500, json.dumps({"error": str(refused)}).encode())

    def do_GET(self) -> None:
        self._do(lambda body: (json.dumps(self._got()).encode(), None))

    def _got(self) -> Any:
        words = self.path.strip("/").split("/")
        if words[1:] == ["systemsharedmemory", "status"] and self.held.triton:
            return [{"name": name, "key": key} for name, (key, _) in self.held.regions.items()]
        if words[1] != "models":
            raise Refused("no such address", missing=True)
        model, rest = words[2], words[3:]
        version = rest[1] if rest[:1] == ["versions"] else ""
        last = rest[-1] if rest else ""
        if last == "config" and not self.held.triton:
            raise Refused("no such address", missing=True)
        if last == "config":
            return self.held.config_json(model)
        if last == "ready":
            self.held.folder(model, version)
            return {}
        return self.held.metadata(model, version)

    def do_POST(self) -> None:
        self._do(self._posted)

    def _posted(self, body: bytes) -> tuple[bytes, int | None]:
        words = self.path.strip("/").split("/")
        if words[1] == "systemsharedmemory":
            if not self.held.triton:
                raise Refused("no such address", missing=True)
            if words[-1] == "register":
                said = read_json(body)
                self.held.register(words[3], said["key"], said["byte_size"])
            else:
                self.held.regions.pop(words[3], None)
            return b"{}", None
        return self._inferred(words[2], words[4] if "versions" in words else "", body)

    def _inferred(self, model: str, version: str, body: bytes) -> tuple[bytes, int]:
        length = int(self.headers.get(LENGTH, len(body)))
        said = read_json(body[:length])
        [tensor] = said["inputs"]
        shape, region = tensor["shape"], tensor.get("parameters", {}).get("shared_memory_region", "")
        data = self.held.read(region, int(np.prod(shape))) if region else body[length:]
        asked = Asked(said.get("id", ""), version, said.get("parameters", {}), bool(region))
        reply = self.held.infer(model, asked, np.frombuffer(data, np.uint8).reshape(shape))
        outputs = [
            {"name": name, "datatype": kind, "shape": sides, "parameters": {"binary_data_size": len(content)}}
            for name, kind, sides, content in reply.outputs
        ]
        head = json.dumps(
            {"model_name": model, "model_version": reply.version, "id": reply.id, "outputs": outputs}
        ).encode()
        return head + b"".join(content for *_, content in reply.outputs), len(head)


SERVERS = {"grpc": GrpcServer, "http": HttpServer}


def main() -> None:
    """Serve a repository until this process is killed."""
    repository, kind, port = sys.argv[1:]
    server = SERVERS[kind](Models(Path(repository)), int(port))
    print(server.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
