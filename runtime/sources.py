"""Where frames come from: a camera, an image, a folder of images, a video."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType

from runtime.camera import Camera
from runtime.errors import UserError
from runtime.frame import Frame, Source
from runtime.opencv import opencv
from runtime.preprocess import IMAGE_SUFFIXES, list_images, read_image

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
CAMERA_PREFIX = "camera:"


class SourceKind(Enum):
    """What a source is, which decides how it is opened."""

    CAMERA = "camera"
    IMAGE = "image"
    FOLDER = "folder"
    VIDEO = "video"


@dataclass(frozen=True)
class SourceSpec:
    """A source that is named but not yet open: `target` is a camera number or a path, as text."""

    kind: SourceKind
    target: str

    @classmethod
    def parse(cls, text: str) -> "SourceSpec":
        """Tell the kind of `text`: `camera:0`, an image file, a folder or a video file.

        Raises `UserError` for a path that does not exist, a suffix that is neither an image's nor a
        video's, or a camera that is no number.
        """
        if text.startswith(CAMERA_PREFIX):
            number = text.removeprefix(CAMERA_PREFIX)
            if not (number.isascii() and number.isdigit()):
                raise UserError("a camera is camera:N with N = 0, 1, ...", repr(text), "for example camera:0")
            return cls(SourceKind.CAMERA, number)
        return cls(_kind_of_path(Path(text)), text)


def _kind_of_path(path: Path) -> SourceKind:
    if path.is_dir():
        return SourceKind.FOLDER
    if not path.exists():
        raise UserError(f"{path} must be an image, a video, a folder or camera:N", "no such file", "check the path")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return SourceKind.IMAGE
    if suffix in VIDEO_SUFFIXES:
        return SourceKind.VIDEO
    known = ", ".join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))
    raise UserError(f"{path} must end in one of {known}", repr(path.suffix), "convert or rename it")


class ImageFiles:
    """Images read from disk one after the other; none is lost. Raises `UserError` naming an unreadable one."""

    live = False
    dropped = 0

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self._paths = tuple(paths)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self._paths):
            image = read_image(path)
            yield Frame(image, path.name, index, time.time())

    def close(self) -> None:
        """Nothing stays open between two images."""

    def __enter__(self) -> "ImageFiles":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class VideoFile:
    """Every frame of a video file. Raises `UserError` if it is no video or holds no frame."""

    live = False
    dropped = 0

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._stem = path.stem
        self._capture = opencv().VideoCapture(str(path))
        if not self._capture.isOpened():
            raise self._no_frames()

    def _no_frames(self) -> UserError:
        return UserError(f"{self.name} must be a video with frames", "none that can be decoded", "try to play it")

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while True:
            ok, bgr = self._capture.read()
            if not ok:
                break
            image = opencv().cvtColor(bgr, opencv().COLOR_BGR2RGB)
            yield Frame(image, f"{self._stem}_{index:06d}", index, time.time())
            index += 1
        if index == 0:
            raise self._no_frames()

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def open_source(spec: SourceSpec) -> Source:
    """Open what `spec` names; use the result in a `with` statement. Raises `UserError` if it does not open."""
    if spec.kind is SourceKind.CAMERA:
        return Camera(int(spec.target))
    path = Path(spec.target)
    if spec.kind is SourceKind.VIDEO:
        return VideoFile(path)
    if spec.kind is SourceKind.IMAGE:
        return ImageFiles(spec.target, [path])
    paths = list_images(path)
    if not paths:
        raise UserError(f"{path} must hold images ({', '.join(sorted(IMAGE_SUFFIXES))})", "none", "check the folder")
    return ImageFiles(spec.target, paths)
