"""A camera's settings by their names in GenICam (nodes): each is checked by its own type, range and choices."""

import difflib
from typing import Any

from runtime.common.errors import UserError
from runtime.sources.genicam.aravis import aravis, asking, library_error

EXECUTE = "execute"  # the value that carries out a command
YES, NO = ("true", "on", "yes", "1"), ("false", "off", "no", "0")


def set_node(device: Any, name: str, text: str) -> None:
    """Set `name` to what `text` means for it, or carry it out.

    Raises `UserError` for a name that the camera has not, a value of another type or out of its range, and for what
    cannot be written now.
    """
    library, node = aravis(), node_of(device, name)
    if node.get_actual_access_mode() == library.GcAccessMode.RO:
        raise UserError(f"{name} must be a setting that can be written", "one that can only be read", "leave it out")
    with asking(f"{name} must take {text}", "some settings can be written only in an order: repeat --genicam in it"):
        if isinstance(node, library.GcCommand):
            if text != EXECUTE:
                raise UserError(f"{name} is a command", repr(text), f"--genicam {name}={EXECUTE}")
            device.execute_command(name)
        elif isinstance(node, library.GcBoolean):
            device.set_boolean_feature_value(name, _boolean(name, text))
        elif isinstance(node, library.GcEnumeration):
            device.set_string_feature_value(name, _choice(device, name, text))
        elif isinstance(node, library.GcFloat):
            device.set_float_feature_value(name, _number(node, name, text))
        elif isinstance(node, library.GcInteger):
            device.set_integer_feature_value(name, _whole_number(node, name, text))
        elif isinstance(node, library.GcString):
            device.set_string_feature_value(name, text)
        else:
            raise UserError(f"{name} must be a setting with a value", type(node).__name__, "leave it out")


def node_of(device: Any, name: str) -> Any:
    """Return the node `name`. Raises `UserError`, with the nearest names, where the camera has none."""
    library, node = aravis(), device.get_feature(name)
    if not isinstance(node, library.GcFeatureNode) or isinstance(node, library.GcCategory):
        near = difflib.get_close_matches(name, sorted(_names(device, "Root")), 3, 0.5)
        cure = f"did you mean {' or '.join(near)}?" if near else "arv-tool-0.8 features lists its settings"
        raise UserError("--genicam needs the name of a setting of this camera", repr(name), cure)
    return node


def value_of(device: Any, name: str) -> str:
    """Return what `name` has now as text; "done" for a command."""
    library, node = aravis(), device.get_feature(name)
    if isinstance(node, library.GcCommand):
        return "done"
    with asking(f"{name} must be readable"):
        value = node.get_value_as_string()
    return str(value)


def choices_of(device: Any, name: str) -> list[str]:
    """Return what the enumeration `name` can be, in order; nothing where the camera has none of that name."""
    try:
        return sorted(device.dup_available_enumeration_feature_values_as_strings(name) or ())
    except library_error():
        return []


def _names(device: Any, category: str) -> set[str]:
    library, node = aravis(), device.get_feature(category)
    if not isinstance(node, library.GcCategory):
        return {category}
    return {name for inner in node.get_features() for name in _names(device, inner)}


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in (*YES, *NO):
        raise UserError(f"{name} must be true or false", repr(text))
    return text.lower() in YES


def _choice(device: Any, name: str, text: str) -> str:
    choices = choices_of(device, name)
    for choice in choices:
        if choice.casefold() == text.casefold():
            return choice
    raise UserError(f"{name} must be one of {', '.join(choices)}", repr(text))


def _number(node: Any, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    check_range(name, value, (node.get_min(), node.get_max()), text)
    return value


def _whole_number(node: Any, name: str, text: str) -> int:
    least, most, step = node.get_min(), node.get_max(), node.get_inc()
    try:
        value = int(text, 0)  # registers are often given in hexadecimal digits
    except ValueError:
        raise UserError(f"{name} must be a whole number from {least} to {most}", repr(text)) from None
    check_range(name, value, (least, most), text)
    if step > 1 and (value - least) % step:
        raise UserError(f"{name} must be {least} and a multiple of {step} more", text, f"{value - value % step}")
    return value


def check_range(name: str, value: float, bounds: tuple[float, float], text: str) -> None:
    """Raise `UserError` for a value that is outside of `bounds`, or no number."""
    least, most = bounds
    if not least <= value <= most:
        raise UserError(f"{name} must be a number from {least:.10g} to {most:.10g}", text)
