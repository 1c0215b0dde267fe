"""The last frames before an event, as JPEG in memory, so that the past can still be saved when something happens."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from runtime.common.errors import UserError
from runtime.images.crops import crops_around
from runtime.images.opencv import opencv
from runtime.images.overlay import thumbnail
from runtime.images.pixels import Image8
from runtime.sinks.json_lines import as_json
from runtime.sinks.judgement import Judgement

JPEG_QUALITY = 95
RING_BYTES = 64 << 20  # a source's ring never takes more memory, whatever the window asks for
RING_FRAMES = 2000
OVERVIEW_WIDTH = 1280  # pixels of a frame that is saved reduced, with crops beside it


@dataclass(frozen=True)
class Window:
    """So much before or after an event: a number of `frames` or, where that is None, `seconds`."""

    frames: int | None = None
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Window":
        """Read "20" (frames) or "2.5s". Raises `UserError` for anything else."""
        number = text.removesuffix("s")
        try:
            window = cls(None, float(number)) if number != text else cls(int(number))
        except ValueError:
            window = cls(-1)
        if (window.frames or 0) < 0 or not 0 <= window.seconds <= 3600:
            raise UserError("a window is a number of frames or of seconds up to an hour", repr(text), "as 20 or 2.5s")
        return window

    def covers(self, frames: int, seconds: float) -> bool:
        """Whether a frame so many `frames` and `seconds` away is inside."""
        return frames <= self.frames if self.frames is not None else 0 <= seconds <= self.seconds


@dataclass(frozen=True, eq=False)
class Shot:
    """A judged frame as an event keeps it: JPEG bytes and its line (`runtime.sinks.json_lines`).

    `jpeg` is the whole frame, reduced where there are to be crops; `crops` are theirs, by their files' names.
    """

    name: str
    index: int
    captured_s: float  # the time of day
    judged_s: float  # of the monotonic clock
    alarming: bool  # anomalous, or without a verdict
    line: dict[str, Any]
    jpeg: bytes
    crops: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, judgement: Judgement, whole: bool = True) -> "Shot":
        """Compress one judgement: its `whole` frame, or an overview of it and, of an alarming one, crops at its boxes.

        The line says where in the frame each crop lies.
        """
        frame, image = judgement.frame, judgement.frame.image
        line, crops = as_json(judgement), dict[str, bytes]()
        if not whole:
            line |= {"frame_size": {"width": image.shape[1], "height": image.shape[0]}, "crops": []}
            around = crops_around(judgement.boxes, image.shape[:2]) if judgement.alarming else []
            for number, crop in enumerate(around, 1):
                name = f"{frame.name}_{number:02d}.jpg"
                crops[name] = jpeg(crop.of(image))
                line["crops"].append({"file": name, **crop.fields()})
            image = overview(image)
        times = (frame.captured_s, judgement.judged_s)
        return cls(frame.name, frame.index, *times, judgement.alarming, line, jpeg(image), crops)

    @property
    def nbytes(self) -> int:
        """Bytes of its pictures."""
        return len(self.jpeg) + sum(map(len, self.crops.values()))


class Ring:
    """The newest shots of one source that `window` covers."""

    def __init__(self, window: Window, max_bytes: int = RING_BYTES) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._shots: deque[Shot] = deque()
        self._bytes = 0

    def push(self, shot: Shot) -> None:
        """Add the newest shot; those that the window has left behind go."""
        self._shots.append(shot)
        self._bytes += shot.nbytes
        while self._shots and not self._keeps_oldest(shot.judged_s):
            self._bytes -= self._shots.popleft().nbytes

    def _keeps_oldest(self, now_s: float) -> bool:
        # the event's first frame is the next: the newest shot here is one frame before it
        covered = self._window.covers(len(self._shots), now_s - self._shots[0].judged_s)
        return covered and self._bytes <= self._max_bytes and len(self._shots) <= RING_FRAMES

    def before(self, first: Shot) -> list[Shot]:
        """Return what the window holds before `first`, the newest frame of all, the oldest first."""
        return [
            shot
            for age, shot in zip(range(len(self._shots), 0, -1), self._shots, strict=True)
            if self._window.covers(age, first.judged_s - shot.judged_s)
        ]

    def clear(self) -> None:
        """Forget all."""
        self._shots.clear()
        self._bytes = 0

    def __iter__(self) -> Iterator[Shot]:
        return iter(self._shots)

    def __len__(self) -> int:
        return len(self._shots)

    @property
    def nbytes(self) -> int:
        """Bytes of the pictures held."""
        return self._bytes


def overview(image: Image8) -> Image8:
    """Return a frame (H, W, 3) reduced to `OVERVIEW_WIDTH`, itself where it is not wider."""
    return thumbnail(image, OVERVIEW_WIDTH) if image.shape[1] > OVERVIEW_WIDTH else image


def jpeg(image: Image8) -> bytes:
    """Return uint8 (H, W, 3) RGB as JPEG. Raises `OSError` for a picture that JPEG cannot hold (over 65535 pixels)."""
    cv2 = opencv()
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    try:
        done, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise OSError(f"a frame of {image.shape[1]}x{image.shape[0]} is no JPEG: {error}") from None
    if not done:
        raise OSError(f"a frame of {image.shape[1]}x{image.shape[0]} is no JPEG")
    return bytes(encoded)
