"""Keeps a candidate's process: tells it what it needs of each frame, and starts it again where it has ended."""

import time
from collections.abc import Mapping
from typing import Any

from runtime.common.child import Gone
from runtime.common.closing import Closing
from runtime.common.errors import UserError
from runtime.images.reduced_map import reduced_map
from runtime.shadow.candidate import Candidate
from runtime.shadow.process import Process
from runtime.shadow.word import PICTURE_WIDTH
from runtime.sinks.judgement import Judgement

AGAIN_S, LONGEST_AGAIN_S = 1.0, 60.0  # before a process that ended is started again


class Keeper(Closing):
    """One thread calls everything but `interrupt`. Raises `UserError` where `candidate` cannot be opened at first."""

    def __init__(self, candidate: Candidate, load: Mapping[str, Any]) -> None:
        self._candidate, self._load = candidate, dict(load)
        self._sent: set[str] = set()  # sources whose mask the process has
        self._open_at_s, self._wait_s = 0.0, AGAIN_S
        self.process: Process | None = Process(candidate, self._load, gently=False)

    def judge(self, judgement: Judgement) -> dict[str, Any]:
        """Return what the candidate says of a frame, or "error"; an empty one: it has been said, and nothing runs."""
        try:
            process = self._opened()
            if process is None:
                return {"error": ""}
            try:
                task = self._task(process, judgement)
            except UserError as error:  # a mask that does not fit the camera: another process would not help
                return {"error": str(error)}
            said = process.judge(task, judgement.frame.image)
        except (Gone, UserError, OSError) as error:
            self._end()
            return {"error": str(error)}
        self._wait_s = AGAIN_S
        return said

    def replace(self, candidate: Candidate) -> None:
        """Go on with another candidate, opened now. Raises `UserError` or `OSError`, and tries again later."""
        self._end()
        self._candidate, self._open_at_s, self._wait_s = candidate, 0.0, AGAIN_S
        try:
            self._opened()
        except (UserError, OSError):
            self._end()
            raise

    def interrupt(self) -> None:
        """End what is under way; any thread may call this."""
        process = self.process
        if process is not None:
            process.interrupt()

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._end()

    def _opened(self) -> Process | None:
        """Return the process, started again where it has ended and some time has passed."""
        if self.process is None and time.monotonic() >= self._open_at_s:
            self.process = Process(self._candidate, self._load, gently=True)
        return self.process

    def _end(self) -> None:
        if self.process is not None:
            self.process.close()
        self.process = None
        self._sent.clear()
        self._open_at_s = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_AGAIN_S)

    def _task(self, process: Process, judgement: Judgement) -> dict[str, Any]:
        """Return what the process is told of a frame; the mask of a source once."""
        result, source = judgement.result, judgement.source
        shown: dict[str, Any] = {"verdict": result.verdict}
        if result.verdict == "anomalous":  # if the candidate does not say so, the picture shows where it was
            limits = {"threshold": result.threshold, "map_threshold": result.map_threshold}
            shown |= {
                "map": reduced_map(result.anomaly_map, PICTURE_WIDTH),
                "score": result.image_score,
                "maximum": judgement.maximum,
                **limits,
            }
        task: dict[str, Any] = {"source": source, "result": shown}
        if source not in self._sent:
            view = self._candidate.views.get(source)
            if view is None:
                view = judgement.view
            else:
                height, width = judgement.frame.image.shape[:2]
                view.fit((height, width))
            task["inside"] = None if view is None else view.inside(process.map_size, self._candidate.sidecar.scoring)
            self._sent.add(source)
        return task
