"""Judge the frames of a camera, a video, an image or a folder of images: `python -m runtime.infer`."""

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common import config
from runtime.common.argument_types import count, seconds
from runtime.common.errors import BROKEN_PIPE_STATUS, run_command
from runtime.common.notices import LAST_WORD_S, say, write
from runtime.common.program import program_name
from runtime.engines.backends import add_arguments, load_options
from runtime.serve import arguments as serve_arguments
from runtime.sinks import arguments as sink_arguments
from runtime.sources import arguments as source_arguments

if TYPE_CHECKING:
    from runtime.common.interrupts import StopSignals
    from runtime.inspection import Inspection
    from runtime.sinks.delivery import Deliveries

PATIENCE_S = 30.0  # that frames of files wait for a sink that is slow; those of cameras never wait
INCOMPLETE_STATUS = 1  # a frame got no verdict, a sink did not get every result, or a source is lost at the end


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.infer`."""
    parser = argparse.ArgumentParser(
        prog=program_name("python -m runtime.infer"),
        description="Judge camera frames, a video or images with a built engine: a line a frame, then a summary.",
        epilog="Ends at the end of the sources, after --limit frames, with q (cameras), with Ctrl-C or SIGTERM.",
    )
    parser.add_argument(
        "--engine",
        type=Path,
        required=True,
        metavar="FILE",
        help="a .plan or .onnx with its .json beside it; needed, here or in the --config file",
    )
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="a score above X is anomalous (default: the engine's own)"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="stop after N frames")
    parser.add_argument("--threads", type=count, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    parser.add_argument(
        "--batch-cameras",
        action="store_true",
        help="judge frames of several cameras in one execution",
    )
    parser.add_argument(
        "--frozen-after",
        type=seconds,
        default=10.0,
        metavar="S",
        help="no verdict on a camera's picture that has not changed for S seconds; 0: for cameras without any noise "
        "(default: %(default)g)",
    )
    source_arguments.add_arguments(parser)
    sink_arguments.add_arguments(parser)
    serve_arguments.add_arguments(parser)
    config.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; returns the status of a signal that ended it, raises `UserError` for what the user can mend."""
    args = config.parse_args(build_parser, argv)
    sink_arguments.check_arguments(build_parser(), args)
    source_arguments.check_output(args.output, args)
    if args.dry_run:
        print(source_arguments.describe_sources(args))
        return None
    return _run(args)


def _run(args: argparse.Namespace) -> int | None:
    """Open everything, judge, then close and tell what it came to, however it ends; return the exit status."""
    with contextlib.ExitStack() as stack:
        with _quick_start():
            line = _open(args, stack)
        try:
            line.inspection.run(line.look)
        finally:
            complete = line.close_and_tell()
    status = line.signals.status()
    if status is None and line.unread():
        return BROKEN_PIPE_STATUS
    return INCOMPLETE_STATUS if status is None and not complete else status


@contextlib.contextmanager
def _quick_start() -> Iterator[None]:
    """While open, the objects of imported modules are not looked through for garbage; later ones alone are."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy's products here are too small for threads that wait
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _open(args: argparse.Namespace, stack: contextlib.ExitStack) -> "Line":
    """Open engine, sources, sinks and page; `stack` closes them."""
    from concurrent.futures import ThreadPoolExecutor

    from runtime.common.interrupts import StopSignals
    from runtime.common.keyboard import key_reader
    from runtime.detector import load  # here, so that --help needs neither NumPy nor Pillow

    with ThreadPoolExecutor(1, "load") as beside:  # libraries read, hash and compile while modules are imported
        loading = beside.submit(load, args.engine, threads=args.threads, threshold=args.threshold, **load_options(args))
        from runtime.images.opencv import opencv
        from runtime.inspection import Inspection, InspectionOptions
        from runtime.sinks.console import ConsoleSink
        from runtime.sinks.delivery import Deliveries

        opencv()
        detector = stack.enter_context(loading.result())
    signals = stack.enter_context(StopSignals())
    views = source_arguments.views_from(args)
    for view in views:
        view.check_map(detector.session.input_size, detector.sidecar.score)
    opened = source_arguments.sources_from(args, detector.sidecar.white)
    sources = [stack.enter_context(source) for source in opened]
    live = any(source.live for source in sources)
    stack.enter_context(sink_arguments.only_writer(args))
    sinks = sink_arguments.sinks_from(args, detector.sidecar.score_maximum, len(sources))
    if not args.json:
        sinks.append(ConsoleSink(len(sources) > 1, live))
    alone = len(sinks) == 1 and args.serve is None

    def unread() -> bool:
        return alone and getattr(sinks[0], "gone", False)

    deliveries = stack.enter_context(
        Deliveries(sinks, patience_s=0.0 if live else PATIENCE_S, say=lambda text: None if unread() else say(text))
    )
    options = InspectionOptions(args.limit, args.batch_cameras, frozen_after_s=args.frozen_after)
    inspection = stack.enter_context(Inspection(sources, detector, [deliveries], options, views))
    server = serve_arguments.server_from(args, detector, inspection.states, deliveries.counts)
    if server is not None:
        inspection.add(stack.enter_context(server))

    def stop() -> None:
        inspection.stop()
        deliveries.hurry()  # whoever sends the signal waits, and kills in the end

    signals.call(stop)
    pressed = stack.enter_context(key_reader()) if live else lambda: ""
    line = Line(inspection, deliveries, args.json, signals, pressed, unread, detector.session.device)
    for sink in sinks:
        if isinstance(sink, ConsoleSink):
            sink.status = line.status
    return line


@dataclass(frozen=True, eq=False)
class Line:
    """A run with everything open.

    `pressed` gives the keys pressed since its last call, `unread` says that stdout is the only output and its reader
    has gone; `device` is what judges.
    """

    inspection: "Inspection"
    deliveries: "Deliveries"
    json: bool
    signals: "StopSignals"
    pressed: Callable[[], str]
    unread: Callable[[], bool]
    device: str

    def status(self) -> str:
        """Return what the console's one line ends with."""
        dropped = sum(self.inspection.dropped().values())
        return f"  {self.inspection.summary.fps:.1f} fps  {dropped} dropped  (q ends)"

    def look(self) -> None:
        """End the inspection where somebody asked for it, or nobody takes its verdicts any more."""
        if "q" in self.pressed() or self.unread():
            self.inspection.stop()

    def close_and_tell(self) -> bool:
        """Finish what is under way and print the summary; return whether every frame was judged and delivered.

        Frames that a live source dropped for newer ones are no lack; a source that is lost by now is one.
        """
        lost = self.inspection.lost()
        self.inspection.close()
        self.deliveries.close()
        if self.unread():
            return True
        summary = self.inspection.summary
        if summary.frames:
            text = summary.text(self.device, self.inspection.dropped())
            write(sys.stderr if self.json else sys.stdout, f"{text}\n", LAST_WORD_S)
        missed = [counts for counts in self.deliveries.counts() if counts.undelivered]
        for counts in missed:
            say(counts.text(), LAST_WORD_S)
        return not (missed or lost or summary.verdicts["none"])


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
