"""Where a controller sets the trigger, if the command line says so: a coil, or a node of the server."""

import re

from runtime.common.errors import UserError
from runtime.controller.modbus_map import BITS, TRIGGER
from runtime.controller.opcua_nodes import INDEX, NAMESPACE, ROOT, START

LAST_COIL = 65535
LARGEST_NUMBER = 2**31 - 1  # of a numeric node id; asyncua counts on behind it for nodes of its own
LONGEST_NAME = 1000  # characters
NODE = re.compile(r"(?:ns=(?P<index>\d{1,5});|nsu=(?P<uri>[^;]+);)?(?P<kind>[si])=(?P<name>.+)")


def coil(text: str) -> int:
    """Return the coil that `text` names, of 0 to 65535, or the documented one where it is empty.

    Raises `UserError` for what is none, and for one that the server itself sets.
    """
    if not text:
        return TRIGGER
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else -1
    told = [place for place in range(len(BITS)) if place != TRIGGER]
    if number in told:
        taken = f"{number}, where it tells {BITS[number]}"
        raise UserError("--trigger modbus:COIL must be a coil that the server does not set", taken, "modbus:100")
    if not 0 <= number <= LAST_COIL:
        raise UserError(f"--trigger modbus:COIL takes a number of 0 to {LAST_COIL}", repr(text), "modbus:100")
    return number


def node_id(text: str) -> str | int:
    """Return the identifier of the node that `text` names as OPC UA writes it, or the documented one if it is empty.

    Raises `UserError` for what is no node id, for another namespace than the server's, and for a node that it has.
    """
    if not text:
        return START
    example = f"ns={INDEX};s=Line1.Trigger"
    found = NODE.fullmatch(text)
    if found is None or not text.isprintable() or len(text) > LONGEST_NAME:
        raise UserError("--trigger opcua:NODE takes a node id, ns=…;s=TEXT or ns=…;i=NUMBER", repr(text), example)
    index, uri, kind, name = found.groups()
    if uri != NAMESPACE and (uri or int(index or 0) != INDEX):
        ours = f"--trigger opcua:NODE must be in the server's own namespace, ns={INDEX} or nsu={NAMESPACE}"
        raise UserError(ours, f"nsu={uri}" if uri else f"ns={int(index or 0)}", example)
    if kind == "i":
        if not (name.isascii() and name.isdigit() and len(name) <= 10 and int(name) <= LARGEST_NUMBER):
            raise UserError(f"--trigger opcua:NODE takes a number of 0 to {LARGEST_NUMBER} for i=", repr(name), example)
        return int(name)
    if name != START and (name == ROOT or name.startswith(f"{ROOT}.")):
        free = f"--trigger opcua:NODE must not be a node that the server has; names below {ROOT} are its own"
        raise UserError(free, repr(name), example)
    return name
