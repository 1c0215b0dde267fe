"""The command line of triggers and of the line's decision: what asks for a verdict, and by when it is answered."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runtime.common.argument_types import count, positive, seconds, whole
from runtime.common.errors import UserError
from runtime.inputs.registry import TriggerSpec, opened_inputs, trigger
from runtime.sources.arguments import specs_from
from runtime.triggers.options import DecideOptions, TriggerOptions

if TYPE_CHECKING:
    from runtime.inputs.mqtt_recipes import MqttRecipes
    from runtime.recipes.book import Recipes
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
        "(of the broker of --mqtt), opcua[:NODE] or modbus[:COIL] (a controller's, of these servers), camera (its own "
        "line triggers it, every frame is a part); repeat for several",
    )
    group.add_argument(
        "--part-from",
        type=trigger,
        metavar="WHAT",
        help="with --trigger camera: what gives the id of the next frame's part; as --trigger, but not camera",
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
        type=whole,
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


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to.

    Raises `UserError` for a decision or a source that cannot be.
    """
    kinds = [spec.kind for spec in args.trigger or ()]
    for name in NEEDS_TRIGGER:
        if getattr(args, name) is not None and not kinds:
            parser.error(f"--{name.replace('_', '-')} needs --trigger WHAT")
    if args.part_from is not None and ("camera" not in kinds or args.part_from.kind == "camera"):
        parser.error("--part-from needs --trigger camera, and names another way than camera")
    if args.debounce is not None and args.decide is None:
        parser.error("--debounce needs --decide NofM")
    _check_kinds(parser, args, kinds)


def _check_kinds(parser: argparse.ArgumentParser, args: argparse.Namespace, kinds: Sequence[str]) -> None:
    from runtime.sources.open import LIVE

    if kinds and args.decide is not None:
        parser.error("--decide is for cameras that run by themselves: leave out --trigger, or --decide")
    if "camera" in kinds and len(kinds) > 1:
        parser.error("--trigger camera stands alone: its frames ask for themselves; ids come by --part-from")
    by_software = args.camera_trigger == "software"
    if by_software and not any(kind != "camera" for kind in kinds):
        parser.error("--camera-trigger software needs --trigger WHAT (not camera), which says when; or use line0")
    for kind in SERVERS:
        if kinds.count(kind) > 1:
            parser.error(f"--trigger {kind} stands once: its server has one trigger")
    for spec in args.trigger or ():
        _check_server(parser, args, "--trigger", spec.kind)
    if args.part_from is not None:
        _check_server(parser, args, "--part-from", args.part_from.kind)
    decide_from(args)
    if "camera" in kinds and any(source.kind not in LIVE for source in specs_from(args)):
        raise UserError("--trigger camera is for cameras and streams", "files", "use another trigger, or none")


def _check_server(parser: argparse.ArgumentParser, args: argparse.Namespace, option: str, kind: str) -> None:
    """See whether there is what triggers or ids of that kind come through."""
    server = SERVERS.get(kind)
    if server is not None and getattr(args, server) is None:
        parser.error(f"{option} {kind} needs --{server} [HOST:]PORT")
    if kind == "mqtt" and args.mqtt is None:
        parser.error(f"{option} mqtt:TOPIC needs --mqtt URL, for the broker and the answers")


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
    given["each_frame"] = any(spec.kind == "camera" for spec in args.trigger)
    given["named"] = args.part_from is not None
    return Orders(TriggerOptions(**{k: v for k, v in given.items() if v is not None}))


def recipes_input(args: argparse.Namespace, recipes: "Recipes") -> "MqttRecipes":
    """Open where recipes are asked for by MQTT. Raises `UserError` where it cannot be."""
    from runtime.inputs.mqtt_recipes import MqttRecipes
    from runtime.sinks.mqtt_options import MqttOptions

    options = MqttOptions.parse(args.mqtt, args.mqtt_credentials, args.mqtt_ca)
    if args.recipe_topic in [spec.target for spec in args.trigger or () if spec.kind == "mqtt"]:
        raise UserError("--recipe-topic takes a topic of its own", f"that of --trigger, {args.recipe_topic!r}")
    return MqttRecipes(options, args.recipe_topic, recipes)


def inputs_from(args: argparse.Namespace, opened: Sequence[object]) -> "list[TriggerInput]":
    """Open what triggers and ids come from; `opened` are the sinks and the page, which may be inputs themselves.

    Raises `UserError` where one cannot be. None of them is started yet.
    """
    specs: list[TriggerSpec] = args.trigger or []
    for i, spec in enumerate(specs):
        if spec in specs[:i]:
            raise UserError("each --trigger must be given once", f"{spec} twice", "leave one of them out")
    ids = [] if args.part_from is None else [args.part_from]
    return opened_inputs([*specs, *ids], args, opened)
