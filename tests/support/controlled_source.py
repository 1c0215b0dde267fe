"""A source that delivers what a test puts in, when it puts it in."""

import queue

import numpy as np

from runtime.sources.frame import Frame, Source


class ControlledSource(Source):
    """Grey levels become frames; an exception is raised where it was put, None is the end."""

    dropped = 0
    state = "file"  # a test may set it

    def __init__(self, name, live, *levels, size=(32, 48)):
        self.name, self.live, self.size = name, live, size
        self.items = queue.SimpleQueue()
        self.asked = 0  # how often the next frame was asked for
        self.closed = False
        self.put(*levels)

    def put(self, *levels):
        for level in levels:
            self.items.put(level)
        return self

    def __iter__(self):
        index = 0
        while True:
            self.asked += 1
            level = self.items.get(timeout=60)
            if level is None or self.closed:
                return
            if isinstance(level, Exception):
                raise level
            yield Frame(np.full((*self.size, 3), level, np.uint8), f"{self.name}_{index}", index, 1.7e9 + index)
            index += 1

    def close(self):
        self.closed = True
        self.items.put(None)
