"""Stands in for `cv2.VideoCapture` of a camera, the one part of a live source that no test machine has."""

import queue
from typing import Any

import cv2
import numpy as np
import pytest


class FakeCamera:
    """Delivers what a test puts in, when it puts it in: a grey level is a frame, None is a pulled cable.

    `opens` says whether it opens the next time. `limits` holds the largest value that its driver grants by property.
    """

    def __init__(self, opens: bool = True) -> None:
        self.frames: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.opened_with: list[Any] = []
        self.released = False
        self.opens = opens
        self.properties: dict[int, float] = {}
        self.limits: dict[int, float] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "FakeCamera":
        monkeypatch.setattr(cv2, "VideoCapture", self)
        return self

    def put(self, *levels: int | None) -> None:
        for level in levels:
            self.frames.put(level)

    def __call__(self, number: int, backend: int = cv2.CAP_ANY) -> "FakeCamera":
        self.opened_with.append(number)
        self.released = False
        return self

    def isOpened(self) -> bool:
        return self.opens

    def set(self, name: int, value: float) -> bool:
        self.properties[name] = min(value, self.limits.get(name, value))
        return True  # as V4L2 does where it gives something else

    def get(self, name: int) -> float:
        return self.properties.get(name, 0.0)

    def read(self) -> tuple[bool, np.ndarray | None]:
        level = self.frames.get(timeout=30)
        if level is None:
            return False, None
        bgr = np.zeros((24, 36, 3), np.uint8)
        bgr[:] = (0, level, level)  # blue, green, red
        return True, bgr

    def release(self) -> None:
        self.released = True
