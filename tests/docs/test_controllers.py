"""The tables of docs/controllers.md are those of the code."""

from runtime.controller import modbus_map, opcua_nodes
from runtime.controller.answer import VERDICT_CODES, Why
from runtime.controller.trigger_address import LARGEST_NUMBER, LAST_COIL
from tests.support.documentation import read

PAGE = "docs/controllers.md"


def _rows(head: str) -> list[list[str]]:
    """Return the cells of the table whose first line begins with `head`, without its two first lines."""
    table = read(PAGE).split(f"\n{head}")[1].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in table]


def _by(writable: bool) -> str:
    return "controller" if writable else "server"


def test_the_nodes_are_those_of_the_server():
    assert [row[:3] for row in _rows("| node below `VisionSystem` |")] == [
        [node.name, node.kind, _by(node.writable)] for node in opcua_nodes.LINE
    ]
    assert [row[:2] for row in _rows("| node below `VisionSystem.SourceN` |")] == [
        [node.name, node.kind] for node in opcua_nodes.SOURCE
    ]
    text = read(PAGE)
    assert f"`ns={opcua_nodes.INDEX}` or `nsu={opcua_nodes.NAMESPACE}`" in text
    assert opcua_nodes.NAMESPACE in text and f"{opcua_nodes.ROOT}.{opcua_nodes.METHOD}(" in text


def test_the_registers_are_those_of_the_server():
    assert [row[:4] for row in _rows("| register | name | type | written by |")] == [
        [str(row.address), row.name, row.kind, _by(row.address in modbus_map.WRITABLE)] for row in modbus_map.LINE
    ]
    assert [row[:3] for row in _rows("| register | name | type | what it is |")] == [
        [f"+{row.address}", row.name, row.kind] for row in modbus_map.SOURCE
    ]
    text = read(PAGE)
    assert f"block of {modbus_map.SIZE} registers" in text
    assert f"begins at register {modbus_map.BLOCK}, the second's at {2 * modbus_map.BLOCK}" in text


def test_the_bits_and_the_numbers_are_those_of_the_server():
    assert [row[:3] for row in _rows("| bit |")] == [
        [str(place), name, _by(place == modbus_map.TRIGGER)] for place, name in enumerate(modbus_map.BITS)
    ]
    told = f"not one that the server sets (1 to {len(modbus_map.BITS) - 1})"
    assert told in read(PAGE) and f"at most {LAST_COIL}" in read(PAGE) and f"at most {LARGEST_NUMBER}" in read(PAGE)
    assert {row[0]: int(row[1]) for row in _rows("| verdict |")} == VERDICT_CODES
    assert [int(row[0]) for row in _rows("| `ReasonCode` |")] == list(Why)
