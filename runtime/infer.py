"""Judge the frames of a camera, a video, an image or a folder of images: `python -m runtime.infer`."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends import add_arguments, cpu_precision
from runtime.errors import run_command

if TYPE_CHECKING:
    from runtime.detector import Detector
    from runtime.frame import Source
    from runtime.inspection import Inspection, Receiver
    from runtime.judgement import Judgement
    from runtime.sinks import FolderSink

CLEAR_LINE = "\x1b[K"  # from the cursor to the end of the terminal's line


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.infer`."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.infer",
        description="Judge camera frames, a video or images with a built engine: a line a frame, then a summary.",
        epilog="Ends at the end of the source, after --limit frames, with q (cameras), with Ctrl-C or SIGTERM.",
    )
    parser.add_argument(
        "--engine", type=Path, required=True, metavar="FILE", help="a .plan or .onnx with its .json beside it"
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--camera", type=_count_from(0), metavar="N", help="number of a camera, for example 0")
    source.add_argument("--source", metavar="PATH", help="an image, a folder of images, a video, or camera:N")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="write frames.jsonl and overlays/ here (default: write nothing)"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="a score above X is anomalous (default: the engine's own)"
    )
    parser.add_argument("--limit", type=_count_from(1), metavar="N", help="stop after N frames")
    parser.add_argument(
        "--threads", type=_count_from(1), metavar="N", help="CPU threads of an .onnx (default: all cores)"
    )
    add_arguments(parser)
    parser.add_argument(
        "--batch-cameras",
        action="store_true",
        help="judge frames of several cameras in one execution",
    )
    parser.add_argument("--no-overlays", action="store_true", help="write frames.jsonl only")
    parser.add_argument(
        "--contact-sheet", action="store_true", help="also write one picture of the frames with the highest scores"
    )
    return parser


def _count_from(smallest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"expected a whole number from {smallest} up, found {text!r}")
        return value

    return parse


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; returns the status of a signal that ended it, raises `UserError` for what the user can mend."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.output is None and (args.no_overlays or args.contact_sheet):
        parser.error("--no-overlays and --contact-sheet need --output DIR")
    return _run(args)


def _run(args: argparse.Namespace) -> int | None:
    """Open engine, sources and sinks, inspect, and print the summary however it ends."""
    from runtime.detector import load  # here, so that --help needs neither NumPy nor Pillow
    from runtime.inspection import Inspection, Options
    from runtime.interrupts import StopSignals
    from runtime.keys import key_reader

    with contextlib.ExitStack() as stack:
        precision = cpu_precision(args)
        detector = stack.enter_context(
            load(args.engine, threads=args.threads, threshold=args.threshold, backend=args.backend, precision=precision)
        )
        signals = stack.enter_context(StopSignals())
        sources = _open_sources(args, stack)
        receivers = _open_sinks(args, detector, sources, stack)
        inspection = stack.enter_context(
            Inspection(sources, detector, receivers, Options(args.limit, args.batch_cameras))
        )
        live = any(source.live for source in sources)
        console = Console(inspection, live and sys.stdout.isatty())
        inspection.add(console)
        signals.call(inspection.stop)
        pressed = stack.enter_context(key_reader()) if live else lambda: ""

        def tick() -> None:
            if "q" in pressed():
                inspection.stop()

        try:
            inspection.run(tick)
        finally:
            console.end(detector.session.device)
    return signals.status()


def _open_sources(args: argparse.Namespace, stack: contextlib.ExitStack) -> "list[Source]":
    """Open what the command line names; `stack` closes them."""
    from runtime.sources import SourceKind, SourceSpec, open_source

    camera = args.camera is not None
    spec = SourceSpec(SourceKind.CAMERA, str(args.camera)) if camera else SourceSpec.parse(args.source)
    return [stack.enter_context(open_source(spec))]


def _open_sinks(
    args: argparse.Namespace, detector: "Detector", sources: "Sequence[Source]", stack: contextlib.ExitStack
) -> "list[Receiver]":
    """Open the sinks that the command line names; `stack` closes them."""
    if args.output is None:
        return []
    from runtime.sinks import FolderSink

    maximum = detector.metadata.score_maximum
    sink = FolderSink(args.output, sources[0].name, maximum, not args.no_overlays, args.contact_sheet)
    return [_Directly(stack.enter_context(sink))]


class _Directly:
    """Writes judgements to a folder in the inspection's thread."""

    def __init__(self, sink: "FolderSink") -> None:
        self._sink = sink

    def offer(self, judgement: "Judgement") -> None:
        """Write one judgement."""
        self._sink.write(judgement.frame, judgement.result)


class Console:
    """A line a judgement on stdout; on a terminal, for cameras, one line that changes. Then the summary."""

    def __init__(self, inspection: "Inspection", status_line: bool) -> None:
        self._inspection = inspection
        self._status_line = status_line

    def offer(self, judgement: "Judgement") -> None:
        """Print one judgement."""
        result = judgement.result
        line = f"{judgement.frame.name}  {result.image_score:.4f}  {result.verdict}"
        if len(self._inspection.sources) > 1:
            line = f"{judgement.source}  {line}"
        if not self._status_line:
            print(line, flush=True)
            return
        dropped = sum(self._inspection.dropped().values())
        fps = self._inspection.summary.fps
        print(f"\r{CLEAR_LINE}{line}  {fps:.1f} fps  {dropped} dropped  (q ends)", end="", flush=True)

    def end(self, device: str) -> None:
        """Print the summary, if anything was judged."""
        if self._inspection.summary.frames:
            text = self._inspection.summary.text(device, self._inspection.dropped())
            print(("\n" if self._status_line else "") + text, flush=True)


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
