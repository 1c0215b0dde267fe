"""A Modbus TCP server of pymodbus around `runtime.controller.modbus_map`."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Sequence
from typing import Any

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.server.requesthandler import ServerRequestHandler
from pymodbus.simulator import DataType, SimData, SimDevice

from runtime.common.listening import Network
from runtime.common.notices import say
from runtime.controller import modbus_map
from runtime.controller.asking import Asking
from runtime.controller.board import Board
from runtime.recipes.book import Recipes

CONNECTIONS = 100  # one more takes the place of the oldest, which may be of a controller that lost its power
WORD = 16  # bits that pymodbus keeps as one number
CONTROLLER = "controller (Modbus)"
BIT_FUNCTIONS = frozenset({1, 2, 5, 15})
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds and tries


class Registers:
    """What clients read and write: each request sees one moment of `board` and `asking`, and of `recipes`.

    A client asks for a verdict at the coil `trigger`.
    """

    def __init__(
        self, board: Board, asking: Asking, trigger: int = modbus_map.TRIGGER, recipes: Recipes | None = None
    ) -> None:
        self._board = board
        self._asking = asking
        self._trigger = trigger
        self._recipes = recipes
        self._requested = 0  # the number of the recipe that was asked for last
        self._part = [0] * modbus_map.PART_REGISTERS

    def device(self) -> SimDevice:
        """Return all addresses as pymodbus wants them: coils, discrete inputs, holding and input registers."""
        size = modbus_map.BLOCK * len(self._board.sources) + modbus_map.SIZE
        # a list, for pymodbus takes memory by the square of a count
        bits = (DataType.BITS, 1, [False] * WORD * (1 + self._trigger // WORD))
        registers = (DataType.REGISTERS, size, 0)
        kinds = (bits, bits, registers, registers)
        coils, inputs, holding, read_only = (
            [SimData(0, count=count, values=values, datatype=kind)] for kind, count, values in kinds
        )
        return SimDevice(id=0, simdata=(coils, inputs, holding, read_only), action=self._action)

    async def _action(
        self, function: int, start: int, address: int, count: int, current: list[int], values: Sequence[Any] | None
    ) -> ExcCodes | None:
        """Put what is asked for into `current`, or take the `values` that are written."""
        if function in BIT_FUNCTIONS:
            return self._bits(address, current, values)
        if not modbus_map.is_there(address, count, len(self._board.sources)):
            return ExcCodes.ILLEGAL_ADDRESS
        if values is None:
            current[address - start : address - start + count] = self._read(address, count)
            return None
        if (refused := await self._change_recipe(address, values)) is not None:
            return refused
        return self._write(address, values)

    async def _change_recipe(self, address: int, values: Sequence[int]) -> ExcCodes | None:
        """Judge by the recipe whose number is among the `values`; the answer to the write comes once that is so."""
        place = modbus_map.RECIPE_REQUEST - address
        whole = modbus_map.WRITABLE.issuperset(range(address, address + len(values)))
        if not (whole and 0 <= place < len(values)):
            return None
        name = "" if self._recipes is None else self._recipes.numbered(values[place])
        if self._recipes is None or not name:
            return ExcCodes.ILLEGAL_VALUE
        refusal = await asyncio.to_thread(self._recipes.use, name, CONTROLLER, "modbus")
        if refusal:
            say(f"Modbus: {refusal}")
            return ExcCodes.DEVICE_FAILURE
        self._requested = values[place]
        return None

    def _read(self, address: int, count: int) -> list[int]:
        block, place = divmod(address, modbus_map.BLOCK)
        answers = self._board.shown()
        if block:
            answer = answers[block - 1]
            registers = modbus_map.source_block(answer, time.monotonic(), self._number(answer.recipe))
        else:
            values = {
                "Sources": len(answers),
                "State": self._board.stopped(),
                "Heartbeat": self._board.heartbeat,
                "ControllerHeartbeat": self._board.controller_beat or 0,
                "Recipe": 0 if self._recipes is None else self._recipes.in_force.number,
                "RecipeRequest": self._requested,
            }
            registers = modbus_map.line_block(values, self._part)
        return registers[place : place + count]

    def _number(self, recipe: str) -> int:
        return 0 if self._recipes is None or not recipe else self._recipes[recipe].number

    def _write(self, address: int, values: Sequence[int]) -> ExcCodes | None:
        places = range(address, address + len(values))
        if not modbus_map.WRITABLE.issuperset(places):
            return ExcCodes.ILLEGAL_ADDRESS
        for place, value in zip(places, values, strict=True):
            if place == modbus_map.CONTROLLER_BEAT:
                self._board.controller_beats(value)
            elif place >= modbus_map.TRIGGER_PART:
                self._part[place - modbus_map.TRIGGER_PART] = value
        return None

    def _bits(self, address: int, current: list[int], values: Sequence[bool] | None) -> ExcCodes | None:
        if values is not None:
            if address != self._trigger or len(values) != 1:
                return ExcCodes.ILLEGAL_ADDRESS
            self._asking.write(bool(values[0]), modbus_map.text_of(self._part))
        asking = self._asking
        state = (asking.level, asking.started, asking.handshake, self._board.stopped())
        bits = modbus_map.bits(*state, self._trigger)
        for word in {0, self._trigger // WORD}:
            current[word] = bits >> WORD * word & 0xFFFF
        return None


class _Handler(ServerRequestHandler):
    """A client's connection, if its address is allowed."""

    def connection_made(self, transport: Any) -> None:
        """Keep the connection, or end it."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self.server.admit(self, transport.get_extra_info("peername")[0])


class Server(ModbusTcpServer):
    """Answers clients whose address lies in one of `allowed`, or all where that is None."""

    def __init__(self, registers: Registers, address: tuple[str, int], allowed: Sequence[Network] | None) -> None:
        super().__init__(registers.device(), address=address)
        self._allowed = allowed

    def callback_new_connection(self) -> _Handler:
        """Make what handles a connection."""
        return _Handler(self, self.trace_packet, self.trace_pdu, self.trace_connect)  # type: ignore[no-untyped-call]

    def admit(self, handler: _Handler, host: str) -> None:
        """End the connection of a client that is not allowed, or the oldest where there are too many."""
        if self._allowed is not None and not is_allowed(host, self._allowed):
            handler.close()
        elif len(self.active_connections) > CONNECTIONS:
            next(iter(self.active_connections.values())).close()

    async def listen_at(self) -> tuple[str, int]:
        """Listen, and return where. Raises `RuntimeError` where the port is taken."""
        await self.serve_forever(background=True)
        host, port = self.transport.sockets[0].getsockname()[:2]  # type: ignore[attr-defined]
        return str(host), int(port)


def is_allowed(host: str, networks: Sequence[Network]) -> bool:
    """Return whether a client's address lies in one of `networks`; IPv4 may come in the clothes of IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    plain = getattr(address, "ipv4_mapped", None) or address
    return any(plain in network for network in networks)
