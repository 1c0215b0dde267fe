"""Live sources as triggers meet them: a camera that is told to take its pictures, and one that runs by itself."""

import threading
import time

import numpy as np

from runtime.sources.frame import Frame, Source


class OnDemand(Source):
    """A camera that takes a picture when it is told to: grey level n for the n-th time, unless it is `deaf`."""

    live = True
    state = "live"
    software_triggered = True

    def __init__(self, name="gig", lag_s=0.0):
        self.name, self.lag_s = name, lag_s
        self.fired, self.deaf, self.closed = 0, set(), False
        self._told = threading.Condition()
        self._due = []

    def software_trigger(self):
        with self._told:
            self.fired += 1
            if self.fired not in self.deaf:
                self._due.append(self.fired)
            self._told.notify_all()

    def __iter__(self):
        while True:
            with self._told:
                self._told.wait_for(lambda: self._due or self.closed)
                if self.closed:
                    return
                level = self._due.pop(0)
            time.sleep(self.lag_s)
            yield Frame(np.full((32, 48, 3), level, np.uint8), f"{self.name}_{level}", level, time.time())

    def close(self):
        with self._told:
            self.closed = True
            self._told.notify_all()


class FreeRunning(Source):
    """A camera that runs by itself: the grey level of a frame is its number modulo 251."""

    live = True
    state = "live"

    def __init__(self, name="cam"):
        self.name, self.closed = name, threading.Event()

    def __iter__(self):
        index = 0
        while not self.closed.wait(0.002):
            yield Frame(np.full((32, 48, 3), index % 251, np.uint8), f"{self.name}_{index}", index, time.time())
            index += 1

    def close(self):
        self.closed.set()
