"""A PLC's program in a few words, the same for both protocols: it asks, reads the answer and gives its heartbeat."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from runtime.controller import modbus_map
from runtime.controller.board import Board, Limits
from runtime.controller.modbus import ModbusOptions, ModbusServer
from runtime.controller.modbus_map import BLOCK, SIZE, SOURCE
from runtime.controller.opcua import OpcuaServer
from runtime.controller.opcua_nodes import About
from runtime.controller.opcua_options import OpcuaOptions
from runtime.result import Result
from runtime.sinks.judgement import Judgement
from runtime.triggers.trigger import Trigger
from tests.support.judgements import judgement
from tests.support.modbus import decoded

Kind = Literal["modbus", "opcua"]
AnyServer = ModbusServer | OpcuaServer
PATIENT = Limits(safe_after_s=600.0, valid_s=600.0)


def judged(source: str = "a", trigger: Trigger | None = None, score: float = 0.5, reason: str = "") -> Judgement:
    """Return what a frame of `source` came to just now; without a verdict where there is a `reason`."""
    one = judgement(0, score, source)
    result: Result = one.result.without_verdict(reason) if reason else one.result
    return replace(one, result=result, trigger=trigger, late=reason.startswith("late"), judged_s=time.monotonic())


def server_of(kind: Kind, port: int = 0, limits: Limits = PATIENT) -> AnyServer:
    """Return a server of the sources a and b, on this machine alone."""
    board = Board(["a", "b"], limits)
    if kind == "modbus":
        return ModbusServer(ModbusOptions.parse(str(port)), board)
    return OpcuaServer(OpcuaOptions.parse(str(port)), board, About("cable.onnx", "ab" * 32, "0.1.0"))


@dataclass(frozen=True)
class Seen:
    """An answer as a controller sees it; `late` counts all late ones so far."""

    sequence: int
    verdict: int
    why: int
    part: str
    late: int


class Controller(Protocol):
    """What both protocols can do."""

    async def answer(self, source: int = 1) -> Seen:
        """Read an answer by one request."""
        ...

    async def pieces(self) -> Seen | None:
        """Read the first source's answer piece by piece; None where it changed meanwhile."""
        ...

    async def stopped(self) -> bool:
        """Read whether no verdict can be trusted."""
        ...

    async def handshake(self) -> tuple[bool, bool, bool, bool]:
        """Read ready, busy, done, refused."""
        ...

    async def ask(self, part: str) -> None:
        """Set the trigger."""
        ...

    async def acknowledge(self) -> None:
        """Clear the trigger."""
        ...

    async def beat(self, value: int) -> None:
        """Give the controller's heartbeat."""
        ...


class ModbusController:
    """By pymodbus' own client."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def _registers(self, address: int, count: int) -> list[int]:
        answer = await self._client.read_input_registers(address, count=count)
        assert not answer.isError()
        return list(answer.registers)

    async def answer(self, source: int = 1) -> Seen:
        return _seen(decoded(await self._registers(source * BLOCK, SIZE), SOURCE))

    async def pieces(self) -> Seen | None:
        before = await self._registers(BLOCK, 2)
        found = before + await self._registers(BLOCK + 2, 2) + await self._registers(BLOCK + 4, SIZE - 4)
        return _seen(decoded(found, SOURCE)) if before == await self._registers(BLOCK, 2) else None

    async def _bits(self) -> dict[str, bool]:
        bits = (await self._client.read_discrete_inputs(0, count=len(modbus_map.BITS))).bits
        return dict(zip(modbus_map.BITS, bits, strict=False))

    async def stopped(self) -> bool:
        return not (await self._bits())["Running"]

    async def handshake(self) -> tuple[bool, bool, bool, bool]:
        bits = await self._bits()
        return bits["Ready"], bits["Busy"], bits["Done"], bits["Refused"]

    async def ask(self, part: str) -> None:
        await self._client.write_registers(modbus_map.TRIGGER_PART, modbus_map.text_registers(part))
        await self._client.write_coil(modbus_map.TRIGGER, True)

    async def acknowledge(self) -> None:
        await self._client.write_coil(modbus_map.TRIGGER, False)

    async def beat(self, value: int) -> None:
        await self._client.write_register(modbus_map.CONTROLLER_BEAT, value)


def _seen(block: dict[str, Any]) -> Seen:
    return Seen(*(block[name] for name in ("Sequence", "Verdict", "ReasonCode", "PartId", "Late")))


OPCUA_NAMES = ("Sequence", "VerdictCode", "ReasonCode", "PartId", "LateTotal")


class OpcuaController:
    """By asyncua's own client."""

    def __init__(self, line: Any) -> None:
        self._line = line

    async def answer(self, source: int = 1) -> Seen:
        return Seen(*await self._line.read(*(f"Source{source}.{name}" for name in OPCUA_NAMES)))

    async def pieces(self) -> Seen | None:
        found = [(await self._line.read(f"Source1.{name}"))[0] for name in (*OPCUA_NAMES, "Sequence")]
        return Seen(*found[:-1]) if found[0] == found[-1] else None

    async def stopped(self) -> bool:
        return (await self._line.read("State"))[0] in ("Halted", "Error")

    async def handshake(self) -> tuple[bool, bool, bool, bool]:
        ready, busy, done, refused = await self._line.read(
            *(f"Trigger.{name}" for name in ("Ready", "Busy", "Done", "Refused"))
        )
        return ready, busy, done, refused

    async def ask(self, part: str) -> None:
        await self._line.node("Trigger.PartId").write_value(part)
        await self._line.node("Trigger.Start").write_value(True)

    async def acknowledge(self) -> None:
        await self._line.node("Trigger.Start").write_value(False)

    async def beat(self, value: int) -> None:
        from asyncua import ua

        await self._line.node("ControllerHeartbeat").write_value(ua.Variant(value, ua.VariantType.UInt32))


@contextlib.asynccontextmanager
async def controller_of(server: AnyServer) -> AsyncIterator[Controller]:
    """Connect to `server`."""
    if isinstance(server, ModbusServer):
        from pymodbus.client import AsyncModbusTcpClient

        async with AsyncModbusTcpClient("127.0.0.1", port=server.address.port, timeout=20, retries=0) as client:
            assert client.connected
            yield ModbusController(client)
    else:
        from tests.support.opcua_client import connected

        async with connected(server.address.port) as line:
            yield OpcuaController(line)


def parts(answers: Sequence[Seen]) -> list[str]:
    """Return whose the answers are."""
    return [answer.part for answer in answers]
