"""The command line of what a controller (PLC) talks to: `--opcua`, `--modbus`; importing this loads no such library."""

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common.argument_types import seconds
from runtime.common.notices import say

if TYPE_CHECKING:
    from runtime.controller.modbus import ModbusServer
    from runtime.controller.opcua import OpcuaServer
    from runtime.recipes.book import Recipes

NEEDS_OPCUA = ("opcua_credentials", "opcua_folder", "opcua_certificate", "opcua_key")
NEEDS_MODBUS = ("modbus_open", "modbus_allow")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `servers_from` reads."""
    group = parser.add_argument_group("controllers (PLC)")
    _add_opcua(group)
    group.add_argument(
        "--modbus",
        metavar="[HOST:]PORT",
        help="a Modbus TCP server with every verdict; this machine only, unless HOST and who may connect are given",
    )
    group.add_argument(
        "--modbus-allow",
        action="append",
        metavar="ADDRESS",
        help="an address or network (192.168.0.0/28) that may connect; repeat for several",
    )
    group.add_argument(
        "--modbus-open", action="store_true", help="everybody who reaches the port may read, and trigger"
    )
    group.add_argument(
        "--safe-after",
        type=seconds,
        default=2.0,
        metavar="S",
        help="a controller sees no verdict once the inspection, or its own heartbeat, stood still for S seconds (2)",
    )
    group.add_argument(
        "--verdict-valid",
        type=seconds,
        default=10.0,
        metavar="S",
        help="a controller sees no verdict that is older than S seconds (10)",
    )


def _add_opcua(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--opcua",
        metavar="[HOST:]PORT",
        help="an OPC UA server with every verdict; this machine only, unless HOST and a password are given",
    )
    group.add_argument(
        "--opcua-credentials",
        type=Path,
        metavar="FILE",
        help="user and password, two lines (default: CFLOW_OPCUA_USER and CFLOW_OPCUA_PASSWORD)",
    )
    group.add_argument(
        "--opcua-folder", type=Path, metavar="DIR", help="keep the server's certificate here; the first start makes it"
    )
    group.add_argument("--opcua-certificate", type=Path, metavar="FILE", help="a certificate of your own, PEM")
    group.add_argument("--opcua-key", type=Path, metavar="FILE", help="its key, PEM")


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to.

    Raises `UserError` for a coil or a node that cannot trigger.
    """
    for owner, names in (("opcua", NEEDS_OPCUA), ("modbus", NEEDS_MODBUS)):
        for name in names:
            if getattr(args, name) and getattr(args, owner) is None:
                parser.error(f"--{name.replace('_', '-')} needs --{owner} [HOST:]PORT")
    for name in ("safe_after", "verdict_valid"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0 seconds")
    if any(_trigger(args, kind) for kind in ("modbus", "opcua")):
        from runtime.controller.trigger_address import coil, node_id

        coil(_trigger(args, "modbus"))
        node_id(_trigger(args, "opcua"))


def _trigger(args: argparse.Namespace, kind: str) -> str:
    """Return where a controller shall set the trigger of that kind; empty: where the documentation says."""
    specs = [*(getattr(args, "trigger", None) or ()), getattr(args, "part_from", None)]
    return next((str(spec.target) for spec in specs if spec is not None and spec.kind == kind), "")


def servers_from(
    args: argparse.Namespace, sources: Sequence[str], recipes: "Recipes | None" = None
) -> "list[OpcuaServer | ModbusServer]":
    """Open what was asked for, its address told on stderr; `recipes` judge `sources`, by their names.

    Raises `UserError` or `OSError`, with none left open, if one cannot be.
    """
    found: list[OpcuaServer | ModbusServer] = []
    with contextlib.ExitStack() as stack:
        for server in _opened(args, sources, recipes):
            stack.callback(server.close)
            found.append(server)
        stack.pop_all()
    for server in found:
        say(f"{server.name}: listening")
    return found


def _opened(
    args: argparse.Namespace, sources: Sequence[str], recipes: "Recipes | None" = None
) -> "Iterator[OpcuaServer | ModbusServer]":
    if args.opcua is None and args.modbus is None:
        return
    from runtime.controller.board import Board, Limits

    limits = Limits(args.safe_after, args.verdict_valid)
    if args.modbus is not None:
        from runtime.controller.modbus import ModbusOptions, ModbusServer

        modbus = ModbusOptions.parse(args.modbus, args.modbus_open, args.modbus_allow or (), _trigger(args, "modbus"))
        yield ModbusServer(modbus, Board(sources, limits), recipes)
    if args.opcua is not None:
        from runtime.common.version import installed_version
        from runtime.controller.opcua import OpcuaServer
        from runtime.controller.opcua_nodes import About
        from runtime.controller.opcua_options import OpcuaOptions

        paths = (args.opcua_credentials, args.opcua_folder, args.opcua_certificate, args.opcua_key)
        opcua = OpcuaOptions.parse(args.opcua, *paths, _trigger(args, "opcua"))
        about = About(version=installed_version())
        yield OpcuaServer(opcua, Board(sources, limits), about, recipes)
