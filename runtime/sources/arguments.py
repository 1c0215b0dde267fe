"""The command line's part on sources: which, how cameras are asked, what is borne, and what of a frame is judged."""

import argparse
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.common.argument_types import (
    camera,
    count,
    label,
    node,
    pixel_format,
    positive,
    roi,
    seconds,
    size,
    trigger,
)
from runtime.common.errors import UserError
from runtime.sources.backoff import SETTLE_S, STALL_AFTER_S
from runtime.sources.listing import ListCameras

if TYPE_CHECKING:
    from runtime.images.view import View, ViewOptions
    from runtime.sources.camera import CameraRequest
    from runtime.sources.frame import Source
    from runtime.sources.open import OpenOptions, SourceKind, SourceSpec


LONG_S = 86_400  # where silence is no loss


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add everything on sources to `parser`; light, for --help."""
    which = parser.add_argument_group("sources (one kind is needed)").add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--camera",
        action="append",
        type=camera,
        metavar="N",
        help="number of a camera, csi:N on a Jetson, genicam:ID for GigE Vision and USB3 Vision (genicam alone: "
        "the only one); repeat for several",
    )
    which.add_argument(
        "--source",
        action="append",
        metavar="WHAT",
        help="a stream's URL (rtsp, http, udp, ...), 'gst: ... ! appsink', an image, a folder of images, a video, "
        "camera:N, csi:N, genicam:ID, or watch:DIR; repeat for several",
    )
    which.add_argument(
        "--watch", action="append", metavar="DIR", help="a folder whose new images are judged as they arrive"
    )
    parser.add_argument(
        "--name", action="append", type=label, metavar="NAME", help="what a source is called; once for each, in order"
    )
    _add_camera_arguments(parser.add_argument_group("cameras and streams"))
    files = parser.add_argument_group("image files")
    files.add_argument(
        "--max-pixels", type=count, metavar="N", help="most pixels of a file (default: what a quarter of memory takes)"
    )
    folders = parser.add_argument_group("watched folders")
    folders.add_argument("--skip-existing", action="store_true", help="judge only images that arrive from now on")
    folders.add_argument(
        "--settle",
        type=seconds,
        default=SETTLE_S,
        metavar="S",
        help="an image unchanged for S seconds is whole (default: %(default)s)",
    )
    add_view_arguments(parser.add_argument_group("what of a frame is judged (once for all sources, or once for each)"))


def _add_camera_arguments(group: Any) -> None:
    group.add_argument("--camera-size", type=size, metavar="WxH", help="ask cameras for frames of W x H pixels")
    group.add_argument(
        "--camera-fps",
        type=positive,
        metavar="F",
        help="ask cameras for F frames per second, and http addresses of single pictures F times per second",
    )
    group.add_argument("--exposure", type=positive, metavar="MS", help="ask cameras to expose for MS milliseconds")
    group.add_argument(
        "--camera-format", type=pixel_format, metavar="CODE", help="ask for a pixel format, such as MJPG or Mono12p"
    )
    group.add_argument(
        "--camera-trigger",
        type=trigger,
        metavar="SOURCE",
        help="GenICam: take a frame for each trigger of SOURCE, such as software or line0 (default: off, run freely)",
    )
    group.add_argument(
        "--genicam",
        action="append",
        type=node,
        metavar="NAME=VALUE",
        help="GenICam: set any other setting of the camera by its name, such as GainRaw=3; repeat for several",
    )
    group.add_argument("--list-cameras", action=ListCameras, help="print the cameras that this machine sees, and end")
    group.add_argument("--no-reconnect", action="store_true", help="end with status 2 when a camera or stream is lost")
    group.add_argument(
        "--wait-for-sources", action="store_true", help="start though a camera or stream is not there yet"
    )
    group.add_argument(
        "--stall-after",
        type=seconds,
        default=STALL_AFTER_S,
        metavar="S",
        help="no frame for S seconds is a loss (default: %(default)g; 0: never, for cameras with a trigger)",
    )
    group.add_argument("--dry-run", action="store_true", help="print what would be opened, and end")


def add_view_arguments(group: Any) -> None:
    """Add what of a frame is judged."""
    group.add_argument("--roi", action="append", type=roi, metavar="X,Y,W,H", help="judge this region only (pixels)")
    group.add_argument(
        "--mask", action="append", metavar="FILE", help="an image as large as the camera's frame, white = inspect"
    )
    group.add_argument(
        "--mask-fill",
        action="store_true",
        help="also paint over what is not inspected; only for a detector trained on frames painted so",
    )
    group.add_argument(
        "--rotate", action="append", type=int, choices=(0, 90, 180, 270), help="turn frames clockwise by degrees"
    )
    group.add_argument(
        "--flip",
        action="append",
        choices=("h", "v", "none"),
        help="mirror frames: h swaps left and right, v up and down",
    )


def specs_from(args: argparse.Namespace) -> "list[SourceSpec]":
    """Return the sources that were asked for, in order. `UserError` for one that cannot be, or a camera twice."""
    from runtime.sources.open import CAMERAS, SourceSpec

    specs = [SourceSpec.parse(text) for text in [*(args.camera or ()), *(args.source or ())]]
    specs += [SourceSpec.parse(f"watch:{text}") for text in args.watch or ()]
    for i, spec in enumerate(specs):
        if spec in specs[:i] and spec.kind in CAMERAS:
            raise UserError("each camera must be given once", f"{spec.name} twice", "leave one of them out")
    return specs


def check_output(output: Path | None, args: argparse.Namespace) -> None:
    """Raise `UserError` where images are written into a folder that they are read from: they would be judged too."""
    from runtime.sources.open import SourceKind

    for spec in specs_from(args) if output is not None else ():
        folder = spec.kind in (SourceKind.FOLDER, SourceKind.WATCH)
        if folder and output is not None and output.resolve() == Path(spec.target).resolve():
            raise UserError("--output must be another folder than the source", str(output), "name another one")


def names_from(args: argparse.Namespace) -> list[str]:
    """Return what the sources are called, in order, no two the same. Raises `UserError` for names that cannot be."""
    from runtime.sources.naming import chosen_names, unique_names

    specs = specs_from(args)
    return chosen_names(args.name, len(specs)) if args.name else unique_names([spec.name for spec in specs])


def options_from(args: argparse.Namespace, white: int | None = None) -> "OpenOptions":
    """Return how the sources are opened; `white` is that of 16-bit files which do not say it (None: 65535).

    Raises `UserError` for options that exclude each other.
    """
    from runtime.images.preprocess import PLAIN, ReadOptions
    from runtime.sources.backoff import Backoff
    from runtime.sources.live import LiveOptions
    from runtime.sources.open import OpenOptions
    from runtime.sources.watch import WatchOptions

    if args.no_reconnect and args.wait_for_sources:
        raise UserError("--wait-for-sources needs reconnecting", "--no-reconnect", "leave one of them out")
    backoff = None if args.no_reconnect else Backoff()
    return OpenOptions(
        LiveOptions(backoff, args.stall_after or None, args.wait_for_sources),
        _request_from(args),
        WatchOptions(existing=not args.skip_existing, settle_s=args.settle),
        ReadOptions(white or PLAIN.white, args.max_pixels),
    )


def _request_from(args: argparse.Namespace) -> "CameraRequest":
    from runtime.sources.camera import CameraRequest

    return CameraRequest(
        args.camera_size,
        args.camera_fps,
        args.exposure,
        args.camera_format,
        args.camera_trigger,
        tuple(args.genicam or ()),
    )


def _check_request(request: "CameraRequest", kinds: "set[SourceKind]") -> None:
    """Raise `UserError` for what is asked of a camera where none of that kind is among the sources."""
    from runtime.sources.camera import CameraRequest
    from runtime.sources.open import CAMERAS, SourceKind

    unasked = CameraRequest(fps=request.fps) if SourceKind.URL in kinds else CameraRequest()
    if request != unasked and not kinds & CAMERAS:
        raise UserError("size, rate, exposure and format can be asked of a camera", "no camera", "leave them out")
    if (request.trigger or request.nodes) and SourceKind.GENICAM not in kinds:
        cure = "add --camera genicam:ID, or leave them out"
        raise UserError("--camera-trigger and --genicam can be asked of a GenICam camera", "none", cure)


def sources_from(args: argparse.Namespace, white: int | None = None) -> "list[Source]":
    """Open every source that was asked for, as `options_from` says; close each.

    Raises `UserError`, with none left open, if one does not open.
    """
    # V4L2's own patience, which OpenCV reads when it is imported; `read` would call 10 s of silence a failure
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(max(1, round(args.stall_after or LONG_S))))
    from runtime.sources.open import open_source

    specs, options = specs_from(args), options_from(args, white)
    _check_request(options.request, {spec.kind for spec in specs})
    with contextlib.ExitStack() as stack:
        named = zip(specs, names_from(args), strict=True)
        sources = [stack.enter_context(open_source(spec, options, name)) for spec, name in named]
        stack.pop_all()
    return sources


def views_from(args: argparse.Namespace) -> "list[View]":
    """Return one view for each source, in order. Raises `UserError` for a mask that cannot be read."""
    from runtime.images.view import View

    count = sum(len(given or ()) for given in (args.camera, args.source, args.watch))
    rois, masks, turns, flips = (
        _one_each(name, getattr(args, name), count) for name in ("roi", "mask", "rotate", "flip")
    )
    return [View(view_options(args, *seen)) for seen in zip(rois, masks, turns, flips, strict=True)]


def view_options(args: argparse.Namespace, roi: Any, mask: Any, rotate: Any, flip: Any) -> "ViewOptions":
    """Return what one source is seen by, as the command line gives it: None, or "none", is nothing of it."""
    from runtime.images.view import ViewOptions

    return ViewOptions(
        roi=roi or None,
        mask=None if mask in (None, "none") else Path(mask),
        fill=args.mask_fill,
        rotate=rotate or 0,
        flip="" if flip in (None, "none") else flip,
        max_pixels=args.max_pixels,
    )


def _one_each(name: str, given: list[Any] | None, count: int) -> list[Any]:
    if given is None or len(given) == 1:
        return (given or [None]) * count
    if len(given) != count:
        raise UserError(f"--{name} must be given once, or once for each source", f"{len(given)} for {count}")
    return given


def describe_sources(args: argparse.Namespace) -> str:
    """Return, for --dry-run, a line on every source and on what stands in its way; opens none."""
    from runtime.common.addresses import pipeline_without_secrets, without_secrets
    from runtime.sources.camera import available_cameras
    from runtime.sources.genicam.aravis import aravis_lack
    from runtime.sources.open import SourceKind
    from runtime.sources.streams import csi_pipeline, gstreamer_lack

    request = options_from(args).request
    lines = []
    for spec, name in zip(specs_from(args), names_from(args), strict=True):
        said = spec.target
        if spec.kind is SourceKind.CAMERA:
            said = f"{spec.target}; {available_cameras()}"
        elif spec.kind is SourceKind.CSI:
            said = f"{spec.target}; GStreamer pipeline: {csi_pipeline(int(spec.target), request)}"
        elif spec.kind is SourceKind.URL:
            said = without_secrets(spec.target)
        elif spec.kind is SourceKind.PIPELINE:
            said = pipeline_without_secrets(spec.target)
        lines.append(f"{spec.kind.value} {said}" + (f"; called {name}" if name != spec.name else ""))
        if spec.kind is SourceKind.GENICAM and (lack := aravis_lack()):
            lines.append(f"would not open: {lack}")
        if spec.kind in (SourceKind.CSI, SourceKind.PIPELINE) and (lack := gstreamer_lack()):
            lines.append(f"would not open: it needs an OpenCV with GStreamer, and here is {lack}")
    views = [view.describe() for view in views_from(args)]
    lines += [f"view of source {i}: {view}" for i, view in enumerate(views) if view]
    return "\n".join(lines)
