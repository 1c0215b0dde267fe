"""Verdicts as registers of a Modbus TCP server, and triggers from its coil."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.common.listening import Address, Network
from runtime.controller.asking import Asking
from runtime.controller.board import Board
from runtime.controller.loop_thread import LoopThread
from runtime.controller.modbus_map import TRIGGER
from runtime.controller.trigger_address import coil
from runtime.recipes.book import Recipes
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
from runtime.triggers.trigger import TriggerInput

START_S = 30.0
PORT = 502


@dataclass(frozen=True)
class ModbusOptions:
    """Where to listen, and for whom: `allowed` None is everybody. `trigger` is the coil that asks for a verdict."""

    address: Address
    allowed: tuple[Network, ...] | None = None
    trigger: int = TRIGGER

    @classmethod
    def parse(cls, text: str, everybody: bool = False, allow: Sequence[str] = (), trigger: str = "") -> "ModbusOptions":
        """Read `[HOST:]PORT`, the addresses or networks that are allowed, and the coil of the `trigger`.

        Raises `UserError` for another form, and where others could connect without being named.
        """
        address = Address.parse(text, "--modbus", PORT)
        allowed = tuple(map(_network, allow))
        if everybody and allowed:
            raise UserError("--modbus-open lets everybody in", "--modbus-allow beside it", "leave one of them out")
        if not (address.loopback or everybody or allowed):
            raise UserError(
                f"Modbus has no passwords, so --modbus on {address.host}, which other machines can reach, must say who "
                "may connect",
                "nothing",
                "give --modbus-allow ADDRESS for each controller, or --modbus-open on a network of its own",
            )
        return cls(address, allowed or None, coil(trigger))


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise UserError("--modbus-allow takes an address or a network", repr(text), "as 192.168.0.20") from None


class ModbusServer(Closing):
    """A sink whose answers a controller reads, and what its triggers come from. `board` is this server's own.

    Recipes can be changed from it where there are `recipes`.

    Raises `UserError` where pymodbus is missing or the port is taken.
    """

    queueing = Queueing(capacity=256, keep="newest", pictures=False, answers_only=True)

    def __init__(self, options: ModbusOptions, board: Board, recipes: Recipes | None = None) -> None:
        try:
            from runtime.controller.modbus_server import Registers, Server
        except ImportError as error:
            raise UserError("--modbus needs pymodbus", str(error), "pip install 'cflow-edge[modbus]'") from None
        self.board = board
        self._asking = Asking("modbus", board.sources)
        self._thread = LoopThread("Modbus", "pymodbus")
        host, port = options.address.host, options.address.port

        async def begin() -> "tuple[Server, tuple[str, int]]":
            registers = Registers(board, self._asking, options.trigger, recipes)
            server = Server(registers, (host, port), options.allowed)
            return server, await server.listen_at()

        try:
            self._server, (host, port) = self._thread.call(begin(), START_S)
        except (RuntimeError, OSError):  # pymodbus keeps the reason to itself
            self._thread.close()
            raise UserError(
                f"--modbus must be able to listen on {host}:{port}", "another program there, or no right to", _CURE
            ) from None
        self.address = Address(host, port)
        self.name = f"Modbus {host}:{port}"

    @property
    def triggers(self) -> dict[str, TriggerInput]:
        """What triggers come from, by its kind."""
        return {"modbus": self._asking}

    def write(self, judgement: Judgement) -> None:
        """Let clients read this judgement's answer from now on."""
        self._asking.answered(judgement.source, self.board.put(judgement.told()))

    def close(self) -> None:
        """Show no verdict any more, then end; a second call does nothing."""
        self.board.close()
        self._thread.end(self._server.shutdown)


_CURE = "choose another port; below 1024 it needs root or CAP_NET_BIND_SERVICE"
