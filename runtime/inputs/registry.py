"""The kinds of `--trigger`, and who opens each. One more kind is one more line in `OPENERS`."""

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from runtime.common.errors import UserError
from runtime.triggers.trigger import TriggerInput


@dataclass(frozen=True)
class TriggerSpec:
    """A value of `--trigger`: `mqtt:line1/trigger` is the kind "mqtt" and the target "line1/trigger".

    The target of "opcua" and "modbus" is the node or coil that the controller sets; empty: the server's own choice.
    """

    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else self.kind


Opener = Callable[[str, argparse.Namespace, Sequence[object]], TriggerInput]


def _open_mqtt(topic: str, args: argparse.Namespace, opened: Sequence[object]) -> TriggerInput:
    from runtime.inputs.mqtt import MqttTriggers
    from runtime.sinks.mqtt_options import MqttOptions

    return MqttTriggers(MqttOptions.parse(args.mqtt, args.mqtt_credentials, args.mqtt_ca), topic)


def _given(kind: str) -> Opener:
    """Return an opener of what something open already has in its `triggers`: the page, a controller's server."""

    def find(target: str, args: argparse.Namespace, opened: Sequence[object]) -> TriggerInput:
        for thing in opened:
            found: TriggerInput | None = getattr(thing, "triggers", {}).get(kind)
            if found is not None:
                return found
        raise UserError(f"--trigger {kind} needs a server that takes them", "none open", "see docs/line.md, Triggers")

    return find


OPENERS: Mapping[str, Opener] = {**{kind: _given(kind) for kind in ("http", "opcua", "modbus")}, "mqtt": _open_mqtt}
FORMS = ("http", "mqtt:TOPIC", "opcua", "opcua:NODE", "modbus", "modbus:COIL", "camera")  # of a value


def trigger(text: str) -> TriggerSpec:
    """Return what one value of `--trigger` says."""
    kind, colon, target = text.partition(":")
    if bool(colon) != bool(target) or not any(_is_of(form, kind, bool(target)) for form in FORMS):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(FORMS)}, found {text!r}")
    return TriggerSpec(kind, target)


def _is_of(form: str, kind: str, with_target: bool) -> bool:
    name, colon, _ = form.partition(":")
    return name == kind and bool(colon) == with_target


def opened_inputs(
    specs: Sequence[TriggerSpec], args: argparse.Namespace, opened: Sequence[object]
) -> list[TriggerInput]:
    """Open the inputs of `specs`; raises `UserError`, with none left open, where one cannot be."""
    with contextlib.ExitStack() as stack:
        found = [
            stack.enter_context(OPENERS[spec.kind](spec.target, args, opened)) for spec in specs if spec.kind in OPENERS
        ]
        stack.pop_all()
    return found
