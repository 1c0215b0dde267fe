"""The command line of triggers and of the line's decision: what asks for a verdict, and by when it is answered."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.common.argument_types import LARGEST, count, positive, seconds
from runtime.common.errors import UserError
from runtime.inputs.registry import TriggerSpec, opened_inputs, trigger
from runtime.sources.arguments import specs_from
from runtime.triggers.options import DecideOptions, TriggerOptions

if TYPE_CHECKING:
    from runtime.triggers.orders import Orders
    from runtime.triggers.trigger import TriggerInput

DEFAULTS = TriggerOptions()
SERVERS = {"http": "serve", "opcua": "opcua", "modbus": "modbus"}  # the option that opens what serves each
NEEDS_TRIGGER = ("deadline", "trigger_queue", "trigger_delay", "trigger_skip")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `orders_from`, `inputs_from` and `decide_from` read."""
    group = parser.add_argument_group("triggers and decisions")
    group.add_argument(
        "--trigger",
        action="append",
        type=trigger,
        metavar="WHAT",
        help="judge only the frames that are asked for, one a part: http (POST /api/trigger of --serve), mqtt:TOPIC "
        "(of the broker of --mqtt), opcua or modbus (a controller's, of these servers), camera (its own line triggers "
        "it, every frame is a part); repeat for several",
    )
    group.add_argument(
        "--deadline",
        type=positive,
        metavar="MS",
        help="milliseconds from the trigger to the answer; what is later has no verdict (default: "
        f"{1e3 * DEFAULTS.deadline_s:g})",
    )
    group.add_argument(
        "--trigger-queue",
        type=count,
        metavar="N",
        help=f"triggers that may wait for their answer; more are refused (default: {DEFAULTS.queue})",
    )
    group.add_argument(
        "--trigger-delay",
        type=seconds,
        metavar="MS",
        help="milliseconds from the trigger after which a frame was read that may be its own: what a stream is late "
        "(default: 0)",
    )
    group.add_argument(
        "--trigger-skip",
        type=_whole,
        metavar="N",
        help="frames after the trigger that may have been exposed before it, of a camera that runs by itself "
        f"(default: {DEFAULTS.skip})",
    )
    group.add_argument(
        "--decide", metavar="NofM", help="the line's decision: anomalous where N of the last M frames are"
    )
    group.add_argument(
        "--debounce",
        type=count,
        metavar="N",
        help="a decision changes once N frames in a row say so (default: 1)",
    )


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= LARGEST):
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 up, found {text!r}")
    return int(text)


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to.

    Raises `UserError` for a decision or a source that cannot be.
    """
    kinds = [spec.kind for spec in args.trigger or ()]
    for name in NEEDS_TRIGGER:
        if getattr(args, name) is not None and not kinds:
            parser.error(f"--{name.replace('_', '-')} needs --trigger WHAT")
    if args.debounce is not None and args.decide is None:
        parser.error("--debounce needs --decide NofM")
    _check_kinds(parser, args, kinds)


def _check_kinds(parser: argparse.ArgumentParser, args: argparse.Namespace, kinds: Sequence[str]) -> None:
    from runtime.sources.open import LIVE

    if kinds and args.decide is not None:
        parser.error("--decide is for cameras that run by themselves: leave out --trigger, or --decide")
    if "camera" in kinds and len(kinds) > 1:
        parser.error("--trigger camera stands alone: its frames ask for themselves")
    by_software = args.camera_trigger == "software"
    if by_software and not any(kind != "camera" for kind in kinds):
        parser.error("--camera-trigger software needs --trigger WHAT (not camera), which says when; or use line0")
    for kind, option in SERVERS.items():
        if kind in kinds and getattr(args, option) is None:
            parser.error(f"--trigger {kind} needs --{option} [HOST:]PORT")
    if "mqtt" in kinds and args.mqtt is None:
        parser.error("--trigger mqtt:TOPIC needs --mqtt URL, for the broker and the answers")
    decide_from(args)
    if "camera" in kinds and any(source.kind not in LIVE for source in specs_from(args)):
        raise UserError("--trigger camera is for cameras and streams", "files", "use another trigger, or none")


def decide_from(args: argparse.Namespace) -> DecideOptions | None:
    """Return how the line decides; None: frame by frame. Raises `UserError` for what is no NofM."""
    return None if args.decide is None else DecideOptions.parse(args.decide, args.debounce or 1)


def orders_from(args: argparse.Namespace) -> "Orders | None":
    """Return what takes triggers; None where every frame is judged."""
    from runtime.triggers.orders import Orders

    if not args.trigger:
        return None
    given = {
        "deadline_s": args.deadline and args.deadline / 1e3,
        "queue": args.trigger_queue,
        "delay_s": args.trigger_delay and args.trigger_delay / 1e3,
        "skip": args.trigger_skip,
    }
    each_frame = any(spec.kind == "camera" for spec in args.trigger)
    return Orders(TriggerOptions(**{k: v for k, v in given.items() if v is not None}, each_frame=each_frame))


def inputs_from(args: argparse.Namespace, opened: Sequence[object]) -> "list[TriggerInput]":
    """Open what triggers come from; `opened` are the sinks and the page, which may be inputs themselves.

    Raises `UserError` where one cannot be. None of them is started yet.
    """
    specs: list[TriggerSpec] = args.trigger or []
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise UserError("each --trigger must be given once", f"{spec} twice", "leave one of them out")
    return opened_inputs(specs, args, opened)
