"""The command line of the sinks: where verdicts, overlays and events go. Importing this loads none of them."""

import argparse
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common.argument_types import positive

if TYPE_CHECKING:
    from runtime.records.log import Log
    from runtime.records.run import RunRecord
    from runtime.sinks.judgement import Sink

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
DEFAULT_CAP = "2GB"
DEFAULT_LINES_CAP = "1GB"
DAY_S = 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `sinks_from` reads."""
    _add_files(parser.add_argument_group("files"))
    _add_network(parser.add_argument_group("network"))


def _add_files(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="write frames.jsonl and overlays/ here (default: write nothing)"
    )
    group.add_argument("--no-overlays", action="store_true", help="write frames.jsonl only")
    sheet = "also write one picture of the frames with the highest scores, by their thresholds"
    group.add_argument("--contact-sheet", action="store_true", help=sheet)
    group.add_argument("--json", action="store_true", help="one JSON object a frame on stdout")
    group.add_argument("--json-file", type=Path, metavar="FILE", help="one JSON object a frame, added to FILE")
    group.add_argument(
        "--json-cap",
        type=_size,
        default=DEFAULT_LINES_CAP,
        metavar="SIZE",
        help=f"cut FILE (and frames.jsonl) into pieces and keep this much of them (default: {DEFAULT_LINES_CAP})",
    )
    group.add_argument("--log", type=Path, metavar="FILE.db", help="the inspection log, which cflow trace reads")
    group.add_argument(
        "--log-cap",
        type=_size,
        default=DEFAULT_CAP,
        metavar="SIZE",
        help=f"cut the log into files and keep this much of them (default: {DEFAULT_CAP})",
    )
    group.add_argument("--log-keep", type=positive, metavar="DAYS", help="remove files of the log that are older")
    group.add_argument("--video", type=Path, metavar="FILE.mp4", help="overlays as a video: FILE_000001.mp4, ...")
    group.add_argument(
        "--video-fps", type=_fps, default=25.0, metavar="F", help="frames a second that the video plays (default: 25)"
    )
    group.add_argument("--events", type=Path, metavar="DIR", help="save anomalies only: a folder per event")
    for side in ("before", "after"):
        group.add_argument(
            f"--event-{side}", default="10", metavar="N", help=f"frames {side} an event, or seconds: 2s (default: 10)"
        )
    group.add_argument(
        "--event-frames",
        choices=("auto", "full", "crops"),
        default="auto",
        help="what an event keeps of a frame: all of it, or a reduced picture and crops around its boxes "
        "(default: auto, crops of frames above 2 megapixels)",
    )
    group.add_argument(
        "--disk-cap",
        type=_size,
        metavar="SIZE",
        help="the most that overlays, video and events may take, each; the oldest go first "
        f"(default: {DEFAULT_CAP} for video and events, none for overlays)",
    )


def _add_network(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--mqtt", metavar="URL", help="publish every verdict: mqtt[s]://HOST[:PORT]/TOPIC")
    group.add_argument(
        "--mqtt-credentials",
        type=Path,
        metavar="FILE",
        help="user and password, two lines (default: CFLOW_MQTT_USER and CFLOW_MQTT_PASSWORD)",
    )
    group.add_argument("--mqtt-ca", type=Path, metavar="FILE", help="trusted certificates of an mqtts:// broker, PEM")
    group.add_argument("--webhook", metavar="URL", help="POST every anomalous verdict here as JSON")
    group.add_argument("--webhook-all", action="store_true", help="POST the good ones too")
    group.add_argument(
        "--webhook-token", type=Path, metavar="FILE", help="a Bearer token (default: CFLOW_WEBHOOK_TOKEN)"
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the command (status 2) where an option stands without the one that it belongs to."""
    if args.output is None and (args.no_overlays or args.contact_sheet):
        parser.error("--no-overlays and --contact-sheet need --output DIR")
    if args.log is None and args.log_keep is not None:
        parser.error("--log-keep needs --log FILE")
    if args.mqtt is None and (args.mqtt_credentials or args.mqtt_ca):
        parser.error("--mqtt-credentials and --mqtt-ca need --mqtt URL")
    if args.webhook is None and (args.webhook_all or args.webhook_token):
        parser.error("--webhook-all and --webhook-token need --webhook URL")


@contextlib.contextmanager
def only_writer(args: argparse.Namespace) -> "Iterator[None]":
    """Be the only process that writes to the folders and files that were asked for; leftovers of killed ones go.

    Two runs would replace each other's overlays, event folders, segments and pieces of lines. Raises
    `UserError` where another writes.
    """
    from runtime.common.files import sweep
    from runtime.common.locks import one_writer

    folders = [(folder / "run", folder) for folder in (args.output, args.events) if folder is not None]
    wanted = (args.video, args.json_file, args.log)
    files = [(path, path) for path in wanted if path is not None and _has_one_writer(path)]
    with contextlib.ExitStack() as stack:
        for path, named in dict.fromkeys([*folders, *files]):
            stack.enter_context(one_writer(path, str(named), "name another place, or end the other run"))
            sweep(path.parent, below=named == path.parent)  # overlays and events lie deeper; beside a video are others'
        yield


def _has_one_writer(path: Path) -> bool:
    """Whether `path` is or will be a file: lines of several runs may meet in a pipe or a device."""
    return path.is_file() or not path.exists()


def sinks_from(
    args: argparse.Namespace, maximum: float, sources: int = 1, run: "RunRecord | None" = None
) -> "list[Sink]":
    """Open every sink that was asked for; `maximum` is the engine's largest score, `sources` are judged at once.

    `run` is entered in the inspection log, where there is one.
    Raises `UserError` or `OSError`, with none left open, if one cannot be.
    """
    with contextlib.ExitStack() as stack:
        opened = _open_sinks(args, maximum, sources, run)
        found = [stack.enter_context(sink) for sink in opened]
        stack.pop_all()
    return found


def _open_sinks(args: argparse.Namespace, maximum: float, sources: int, run: "RunRecord | None") -> "Iterator[Sink]":
    if args.log is not None:
        from runtime.sinks.inspection_log import LogSink

        yield LogSink(log_from(args, run))
    if args.output is not None:
        from runtime.sinks.folder import FolderOptions, FolderSink

        folder = FolderOptions(not args.no_overlays, args.contact_sheet, args.json_cap, args.disk_cap, sources > 1)
        yield FolderSink(args.output, maximum, folder)
    if args.json or args.json_file is not None:
        from runtime.sinks.json_lines import LinesSink

        if args.json:
            yield LinesSink()
        if args.json_file is not None:
            yield LinesSink(args.json_file, args.json_cap)
    if args.video is not None:
        from runtime.sinks.video import VideoSink
        from runtime.sinks.video_segment import VideoOptions

        cap_bytes = args.disk_cap or _size(DEFAULT_CAP)
        video = VideoOptions(fps=args.video_fps, cap_bytes=cap_bytes, sources=sources)
        yield VideoSink(args.video, maximum, video)
    if args.events is not None:
        from runtime.sinks.event_ring import Window
        from runtime.sinks.events import EventOptions, EventSink

        before, after = Window.parse(args.event_before), Window.parse(args.event_after)
        cap_bytes = args.disk_cap or _size(DEFAULT_CAP)
        options = EventOptions(before, after, cap_bytes, frames=args.event_frames)
        yield EventSink(args.events, maximum, options)
    if args.mqtt is not None:
        from runtime.sinks.mqtt import MqttSink
        from runtime.sinks.mqtt_options import MqttOptions

        yield MqttSink(MqttOptions.parse(args.mqtt, args.mqtt_credentials, args.mqtt_ca))
    if args.webhook is not None:
        from runtime.sinks.webhook import WebhookOptions, WebhookSink

        yield WebhookSink(WebhookOptions.parse(args.webhook, args.webhook_token, args.webhook_all))


def log_from(args: argparse.Namespace, run: "RunRecord | None" = None) -> "Log":
    """Open the inspection log of `args` and enter `run`. Raises `UserError` or `OSError`, with the log closed."""
    from runtime.records.log import Log

    log = Log(args.log, args.log_cap, None if args.log_keep is None else DAY_S * args.log_keep)
    with contextlib.ExitStack() as stack:
        stack.enter_context(log)
        if run is not None:
            log.begin(run)
        stack.pop_all()
    return log


def _size(text: str) -> int:
    """Return bytes for "2GB", "500 MB", "1e6"; powers of 1000, as disks are sold."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)b?", text.strip().lower())
    size = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 500MB or 2GB, found {text!r}")
    return size


def _fps(text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = 0.0
    if not 0.1 <= fps <= 1000:
        raise argparse.ArgumentTypeError(f"expected frames a second from 0.1 to 1000, found {text!r}")
    return fps
