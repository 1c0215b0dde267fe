"""What the runtime costs around the session: python -m runtime.overhead --engine cable.onnx.

Frames come from memory as a camera's driver leaves them there (BGR), and go the way of `runtime.infer`: source, feed,
detector, queue, JSON line in a file. The overhead of a frame is the time from one result to the next without the
session's own stages. The parts of the JSON line, which a thread of its own makes, are timed apart.
With `--log` it is what 1,000 judgements a second into an inspection log, without boxes and with 5 each, cost the
inspection beside it.
With `--serve` it is what the page costs, with nobody looking, viewers, and clients that ask and never read, in turn.
These are a process of their own on the same machine: on few cores they take a share of it themselves.
With `--shadow` it is what a candidate costs that judges the same frames beside, in turn with none.
With `--everything` it is what an inspection log, the page, the drift watch and a candidate cost together.
With `--drift` it is what the drift watch costs, in CPU time of all threads, at `FPS` frames a second.
With `--trigger` it is the time from a trigger to the JSON line that answers it, one part after the other.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runtime.common.argument_types import count
from runtime.common.errors import run_command
from runtime.common.program import program_name
from runtime.detector import Detector, load
from runtime.engines.backends import add_arguments, load_options
from runtime.overheads.drift import drift_overhead
from runtime.overheads.everything import everything_overhead
from runtime.overheads.generated import Generated as Generated  # tests/bench asks for it here, in old builds too
from runtime.overheads.log import log_overhead
from runtime.overheads.page import page_overhead
from runtime.overheads.session import measure, text
from runtime.overheads.shadow import shadow_overhead
from runtime.overheads.trigger import trigger_overhead


def open_engine(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, Detector]:
    """Return what a command line says and the engine that it names."""
    parser.add_argument("--engine", type=Path, required=True, metavar="FILE", help="a .plan or .onnx with its .json")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of an .onnx (default: all cores)")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    return arguments, load(arguments.engine, threads=arguments.threads, **load_options(arguments))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.overhead"), description=__doc__)
    add = parser.add_argument
    add("--frames", type=count, default=300, metavar="N", help="frames that count (default: %(default)s)")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--serve", action="store_true", help="measure instead what the page costs: --frames of each case in a round"
    )
    ways.add_argument(
        "--log", action="store_true", help="measure instead what an inspection log costs, in the same way"
    )
    ways.add_argument(
        "--trigger", action="store_true", help="measure instead from a trigger to its written verdict, --frames parts"
    )
    ways.add_argument(
        "--shadow", type=Path, metavar="FILE", help="measure instead what this engine costs as a candidate beside"
    )
    ways.add_argument(
        "--everything",
        type=Path,
        metavar="FILE",
        help="measure instead what log, page, drift watch and this engine as a candidate cost together",
    )
    ways.add_argument(
        "--drift", action="store_true", help="measure instead what the drift watch costs, in the same way"
    )
    add("--viewers", type=count, default=20, metavar="N", help="with --serve: clients (default: %(default)s)")
    add(
        "--rounds",
        type=count,
        default=5,
        metavar="N",
        help="with all of these but --trigger: rounds (default: %(default)s)",
    )
    args, detector = open_engine(parser, argv)
    with detector, tempfile.TemporaryDirectory() as folder:
        if args.trigger:
            print(trigger_overhead(detector, args.frames, Path(folder)))
        elif args.serve:
            print(page_overhead(detector, args.engine, args.frames, args.rounds, args.viewers))
        elif args.everything is not None:
            print(everything_overhead(detector, args.engine, args.everything, args.frames, args.rounds, Path(folder)))
        elif args.drift:
            print(drift_overhead(detector, args.engine, args.frames, args.rounds))
        elif args.log:
            print(log_overhead(detector, args.frames, args.rounds, Path(folder)))
        elif args.shadow is not None:
            print(shadow_overhead(detector, args.engine, args.shadow, args.frames, args.rounds))
        else:
            print(text(measure(detector, args.frames, Path(folder)), detector.session.device))


def command() -> int:
    """Run `main` as a program: the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
