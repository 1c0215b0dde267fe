"""Judge the frames of a camera, a video, an image or a folder of images: `python -m runtime.infer`."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.backends import add_arguments, cpu_precision
from runtime.errors import run_command

if TYPE_CHECKING:
    from runtime.detector import Detector, Result
    from runtime.frame import Frame, Source
    from runtime.sinks import FolderSink
    from runtime.summary import Summary

CLEAR_LINE = "\x1b[K"  # from the cursor to the end of the terminal's line


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.infer`."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.infer",
        description="Judge camera frames, a video or images with a built engine: a line a frame, then a summary.",
        epilog="Ends at the end of the source, after --limit frames, with q (cameras) or with Ctrl-C.",
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command. Raises `UserError` for what the user can mend."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.output is None and (args.no_overlays or args.contact_sheet):
        parser.error("--no-overlays and --contact-sheet need --output DIR")
    _run(args)


def _run(args: argparse.Namespace) -> None:
    """Open engine, source and output, judge frame by frame, and print the summary however it ends."""
    from runtime.detector import load  # here, so that --help needs neither NumPy nor Pillow
    from runtime.keys import key_reader
    from runtime.sinks import FolderSink
    from runtime.sources import SourceKind, SourceSpec, open_source
    from runtime.summary import Summary

    camera = args.camera is not None
    spec = SourceSpec(SourceKind.CAMERA, str(args.camera)) if camera else SourceSpec.parse(args.source)
    with contextlib.ExitStack() as stack:
        precision = cpu_precision(args)
        detector = stack.enter_context(
            load(args.engine, threads=args.threads, threshold=args.threshold, backend=args.backend, precision=precision)
        )
        source = stack.enter_context(open_source(spec))
        sink = None
        if args.output is not None:
            maximum = detector.metadata.score_maximum
            sink = FolderSink(args.output, maximum, not args.no_overlays, args.contact_sheet)
            stack.enter_context(sink)
        pressed = stack.enter_context(key_reader()) if source.live else lambda: ""
        status_line = source.live and sys.stdout.isatty()
        summary = Summary()
        try:
            for frame, result in _judge(source, detector, sink, summary):
                line = f"{frame.name}  {result.image_score:.4f}  {result.verdict}"
                if status_line:
                    line = f"\r{CLEAR_LINE}{line}  {summary.fps:.1f} fps  {source.dropped} dropped  (q ends)"
                print(line, end="" if status_line else "\n", flush=True)
                if summary.frames == args.limit or "q" in pressed():
                    break
        finally:
            if summary.frames:
                print(("\n" if status_line else "") + summary.text(detector.session.device, source.dropped), flush=True)


def _judge(
    source: "Source", detector: "Detector", sink: "FolderSink | None", summary: "Summary"
) -> Iterator[tuple["Frame", "Result"]]:
    """Yield each frame with its result once it is judged, written and counted; every stage is timed apart."""
    from runtime.judgement import Judgement

    waiting = time.perf_counter()
    for frame in source:
        latency_ms = {"capture": 1e3 * (time.perf_counter() - waiting)}
        result = detector(frame.image)
        latency_ms |= result.latency_ms
        if sink is not None:
            writing = time.perf_counter()
            sink.write(Judgement(source.name, frame, result))
            latency_ms["write"] = 1e3 * (time.perf_counter() - writing)
        summary.add(result.verdict, latency_ms)
        yield frame, result
        waiting = time.perf_counter()


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
