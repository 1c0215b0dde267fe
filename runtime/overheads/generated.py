"""Frames from memory, as a camera's driver leaves them there: what the measurements and the soak judge."""

import time
from collections.abc import Iterable, Iterator

import numpy as np

from runtime.images.opencv import opencv
from runtime.images.pixels import Image8
from runtime.sources.frame import Frame, Source

HEIGHT, WIDTH = 480, 640  # of the frames, in pixels


class Generated(Source):
    """Frames of `images` that are made as they are asked for; `read` counts them, and all are to be judged."""

    live = False

    def __init__(self, name: str, images: Iterable[Image8]) -> None:
        self.name, self.read = name, 0
        self._images, self._closed = images, False

    def __iter__(self) -> Iterator[Frame]:
        for image in self._images:
            if self._closed:
                return
            index, self.read = self.read, self.read + 1
            yield Frame(image, f"frame_{index:08d}", index, time.time())

    def close(self) -> None:
        """End the iteration at the next frame."""
        self._closed = True


def from_memory(frames: int, convert_ms: list[float]) -> Iterator[Image8]:
    """Yield `frames` images as captures do: turned from BGR to RGB, which takes `convert_ms`."""
    cv2 = opencv()
    coarse = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    bgr = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(frames):
        started = time.perf_counter()
        image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        convert_ms.append(1e3 * (time.perf_counter() - started))
        yield image
