"""Take good images to train on, seen just as the inspection will see them: `python -m runtime.capture`.

Region, mask, rotation and flip are those of `runtime.infer`; give both commands the same ones.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.common import config
from runtime.common.argument_types import count, seconds, white
from runtime.common.errors import UserError, run_command
from runtime.common.program import program_name
from runtime.sources.arguments import add_arguments, check_output, describe_sources, sources_from, views_from

if TYPE_CHECKING:
    from runtime.images.encoding import Encoding
    from runtime.images.pixels import Image8
    from runtime.sources.frame import Frame

LIMIT = 200
INCOMPLETE_STATUS = 1  # a picture could not be read
EVERY_S = 1.0  # of a live source: neighbouring frames teach a detector nothing new


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of `runtime.capture`."""
    parser = argparse.ArgumentParser(prog=program_name("python -m runtime.capture"), description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="write PNG files here")
    parser.add_argument(
        "--limit", type=count, default=LIMIT, metavar="N", help="stop after N images (default: %(default)s)"
    )
    parser.add_argument(
        "--every",
        type=seconds,
        default=EVERY_S,
        metavar="S",
        help="take a camera's or stream's frames S seconds apart (default: %(default)g)",
    )
    parser.add_argument(
        "--white", type=white, metavar="N", help="white of 16-bit files that do not say it, such as 4095 (65535)"
    )
    add_arguments(parser)
    config.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command; return its status. Raises `UserError` for what the user can mend."""
    args = config.parse_args(build_parser, argv)
    check_output(args.output, args)
    if args.camera_trigger == "software":
        raise UserError("runtime.capture takes pictures as they come", "--camera-trigger software", "use off, or line0")
    if args.dry_run:
        print(describe_sources(args))
        return None
    views = views_from(args)
    if len(views) != 1:
        raise UserError("images are taken from one source at a time", f"{len(views)}", "run the command for each")
    written = 0
    [source] = sources_from(args, args.white)
    try:
        with source, _only_writer(args.output):
            last_s = float("-inf")
            for frame in source:
                if frame.fault or (source.live and frame.monotonic_s - last_s < args.every):
                    continue
                last_s = frame.monotonic_s
                _write(views[0](frame.image), args.output / file_name(frame, source.live), source.encoding)
                written += 1
                if written == args.limit:
                    break
    finally:
        print(f"{written} images in {args.output}")
    return INCOMPLETE_STATUS if source.unreadable else None


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes to `folder`, as an inspection's output is; leftovers of killed ones go."""
    from runtime.common.files import sweep
    from runtime.common.locks import one_writer

    with one_writer(folder / "run", str(folder), "name another place, or end the other run"):
        sweep(folder)
        yield


def file_name(frame: "Frame", live: bool) -> str:
    """Return the image's name: the file's own, or when it was taken, so that one run does not replace another's."""
    if not live:
        return f"{frame.name}.png" if Path(frame.name).suffix != ".png" else frame.name
    taken = datetime.fromtimestamp(frame.captured_s, timezone.utc)
    return f"{taken:%Y%m%dT%H%M%S}.{taken.microsecond // 1000:03d}Z_{frame.name}.png"


def _write(image: "Image8", path: Path, encoding: "Encoding | None") -> None:
    from PIL import Image  # here, so that --help is quick

    from runtime.common.files import whole_file
    from runtime.images.encoding import stamp

    if path.exists():
        raise UserError(f"{path} must not be there yet", "a file", "choose another folder")
    with whole_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG", pnginfo=encoding and stamp(encoding))


def command() -> int:
    """Run as a console script and return the exit status."""
    return run_command(main)


if __name__ == "__main__":
    sys.exit(command())
