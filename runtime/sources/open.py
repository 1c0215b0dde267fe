"""Where frames come from: cameras, streams, an image, a folder of images, a folder to watch, a video."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from runtime.common.addresses import is_url, marked, pipeline_without_secrets, without_secrets
from runtime.common.errors import UserError
from runtime.common.notices import say, worth_saying
from runtime.images.encoding import encoding_of
from runtime.images.folders import IMAGE_SUFFIXES, describe_ignored, describe_use, list_images
from runtime.images.preprocess import PLAIN, ReadOptions, read_image
from runtime.sources.camera import CameraRequest, camera_origin
from runtime.sources.frame import Frame, Source, blank
from runtime.sources.genicam.camera import genicam_name, genicam_origin
from runtime.sources.live import Live, LiveOptions
from runtime.sources.reader import Origin
from runtime.sources.streams import check_pipeline, csi_origin, pipeline_origin, url_origin
from runtime.sources.urls import file_prefix, parse_url
from runtime.sources.video import VIDEO_SUFFIXES, VideoFile
from runtime.sources.watch import WatchedFolder, WatchOptions


class SourceKind(Enum):
    """What a source is, which decides how it is opened."""

    CAMERA = "camera"
    CSI = "csi"
    GENICAM = "genicam"
    URL = "url"
    PIPELINE = "gst"
    WATCH = "watch"
    IMAGE = "image"
    FOLDER = "folder"
    VIDEO = "video"


MOST_DIGITS = 10  # of a camera's number: what a driver's interface can hold
NUMBERED = {"camera": SourceKind.CAMERA, "csi": SourceKind.CSI}
CAMERAS = frozenset({SourceKind.CAMERA, SourceKind.CSI, SourceKind.GENICAM})  # each opens once
LIVE = CAMERAS | {SourceKind.URL, SourceKind.PIPELINE}


@dataclass(frozen=True)
class SourceSpec:
    """A source that is named but not yet open: `target` is a number, URL, pipeline or path, as text."""

    kind: SourceKind
    target: str

    @classmethod
    def parse(cls, text: str) -> "SourceSpec":
        """Tell the kind of `text`: `camera:0`, `csi:0`, `genicam`, `genicam:ID`, `gst: ... ! appsink`,
        `watch:DIR`, a URL, or a path.

        Raises `UserError` for a path that does not exist, a suffix that is neither an image's nor a video's, a
        camera that is no number, a scheme that no stream has, or a pipeline without an appsink at its end.
        """
        prefix, colon, rest = text.partition(":")
        if not text or text == "watch:":  # an unset variable of a shell, which as a path would be the working folder
            raise UserError("a source must be named", "an empty text", "for example ./images, or . for this folder")
        if colon and prefix in NUMBERED:
            if not (rest.isascii() and rest.isdigit() and len(rest) < MOST_DIGITS):
                raise UserError(f"a camera is {prefix}:N with N = 0, 1, ...", repr(text), f"for example {prefix}:0")
            return cls(NUMBERED[prefix], rest)
        if prefix == "genicam" and (colon or not Path(text).exists()):
            return cls(SourceKind.GENICAM, rest.strip())
        if colon and prefix == "gst":
            check_pipeline(rest)
            return cls(SourceKind.PIPELINE, rest.strip())
        if colon and prefix == "watch":
            return cls(SourceKind.WATCH, rest)
        if is_url(text):
            parse_url(text)
            return cls(SourceKind.URL, text)
        return cls(_kind_of_path(Path(text)), text)

    @property
    def name(self) -> str:
        """What the source is called where nobody gave it a name; for people, without passwords."""
        if self.kind in (SourceKind.CAMERA, SourceKind.CSI):
            return f"{self.kind.value}:{self.target}"
        if self.kind is SourceKind.GENICAM:
            return genicam_name(self.target)
        if self.kind is SourceKind.PIPELINE:
            return f"gst: {pipeline_without_secrets(self.target)}"
        return without_secrets(self.target) if self.kind is SourceKind.URL else self.target


@dataclass(frozen=True)
class OpenOptions:
    """How sources are opened; each kind takes what concerns it."""

    live: LiveOptions = field(default_factory=LiveOptions)
    request: CameraRequest = field(default_factory=CameraRequest)
    watch: WatchOptions = field(default_factory=WatchOptions)
    read: ReadOptions = PLAIN


def _kind_of_path(path: Path) -> SourceKind:
    if path.is_dir():
        return SourceKind.FOLDER
    if not path.is_file():
        expected = f"{marked(str(path))} must be an image, a video, a folder, a stream's URL or camera:N"
        raise UserError(expected, "no regular file" if path.exists() else "no such file", "check the path")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return SourceKind.IMAGE
    if suffix in VIDEO_SUFFIXES:
        return SourceKind.VIDEO
    known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise UserError(f"{path} must end in one of {known}", repr(path.suffix), "convert or rename it")


class ImageFiles(Source):
    """Images read from disk one after the other; none is lost, and one that cannot be read is a frame with a fault."""

    live = False

    def __init__(self, name: str, paths: Sequence[Path], read: ReadOptions = PLAIN) -> None:
        self.name = name
        self._read = read
        self._paths = tuple(paths)
        self.uniform = len(self._paths) == 1
        self._unreadable = 0

    @property
    def unreadable(self) -> int:
        """Files that could not be read whole."""
        return self._unreadable

    def __iter__(self) -> Iterator[Frame]:
        image = blank()
        for index, path in enumerate(self._paths):
            fault = ""
            try:
                image = read_image(path, self._read)
            except UserError as error:
                fault, image = str(error), blank(image.shape)
                self._unreadable += 1
                if worth_saying(self._unreadable):
                    say(f"no verdict: {fault}")
            else:
                self.encoding = encoding_of(path)
            yield Frame(image, path.name, index, time.time(), fault)

    def close(self) -> None:
        """Nothing stays open between two images."""


def live_origin(spec: SourceSpec, options: OpenOptions) -> Origin:
    """Return how the live source `spec` is opened, without opening it."""
    if spec.kind is SourceKind.CAMERA:
        return camera_origin(int(spec.target), options.request, options.live.say)
    if spec.kind is SourceKind.CSI:
        return csi_origin(int(spec.target), options.request)
    if spec.kind is SourceKind.GENICAM:
        return genicam_origin(spec.target, options.request, options.live.say, options.read)
    if spec.kind is SourceKind.PIPELINE:
        return pipeline_origin(spec.target)
    return url_origin(spec.target, options.live.stall_after_s, options.request.fps, options.read)


def open_source(spec: SourceSpec, options: OpenOptions | None = None, name: str = "") -> Source:
    """Open what `spec` names, as `name`; use the result in a `with` statement. Raises `UserError` if it does not open.

    Without `options` the first loss of a live source ends it.
    """
    options = options or OpenOptions()
    if spec.kind in LIVE:
        origin = live_origin(spec, options)
        if name and name != origin.name:
            origin = replace(origin, name=name, prefix=file_prefix(name) or origin.prefix)
        return Live(origin, options.live)
    path, name = Path(spec.target), name or spec.target
    if spec.kind is SourceKind.WATCH:
        return WatchedFolder(path, options.watch, options.read, name)
    if spec.kind is SourceKind.VIDEO:
        return VideoFile(path, name, checked=True)
    if spec.kind is SourceKind.IMAGE:
        return ImageFiles(name, [path], options.read)
    paths = list_images(path)
    if not paths:
        found = describe_ignored(path) or "none"
        raise UserError(f"{path} must hold images ({', '.join(sorted(IMAGE_SUFFIXES))})", found, "check the folder")
    if describe_ignored(path):  # else the summary's count of frames says it all
        say(describe_use(paths))
    return ImageFiles(name, paths, options.read)
