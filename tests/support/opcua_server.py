"""An OPC UA server for tests, and one question to it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from runtime.controller.board import Board, Limits
from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import About
from runtime.controller.opcua_options import OpcuaOptions
from tests.support.controllers import PATIENT
from tests.support.opcua_client import Line, connected

ABOUT = About("cable.onnx", "ab" * 32, "0.1.0")


def open_server(options: OpcuaOptions | None = None, limits: Limits = PATIENT) -> OpcuaServer:
    server = OpcuaServer(options or OpcuaOptions.parse("0"), Board(["a", "b"], limits), ABOUT)
    server.board.beat()
    return server


def ask(server: OpcuaServer, work: Callable[[Line], Awaitable[Any]], **how: Any) -> Any:
    async def run() -> Any:
        async with connected(server.address.port, **how) as line:
            return await work(line)

    return asyncio.run(run())


def read(server: OpcuaServer, *names: str, **how: Any) -> list[Any]:
    found: list[Any] = ask(server, lambda line: line.read(*names), **how)
    return found
