"""The line's decision beside a frame's verdict: N of the last M frames of a camera that runs by itself."""

from collections import Counter, deque

from runtime.result import Verdict
from runtime.triggers.options import DecideOptions


class Decider:
    """Decides for one source, frame by frame; `reset` forgets all."""

    def __init__(self, options: DecideOptions) -> None:
        self._options = options
        self._verdicts: deque[Verdict] = deque(maxlen=options.frames)
        self._decided: Verdict = "none"
        self._other: Verdict = "none"  # what the window has said since, and how often in a row
        self._times = 0

    def reset(self) -> None:
        """Begin anew: what comes now is not to be held together with what was."""
        self._verdicts.clear()
        self._decided, self._times = "none", 0

    def add(self, verdict: Verdict) -> Verdict:
        """Take the next frame's verdict and return the decision.

        A frame without a verdict counts for neither side: where those with one cannot say whether N of M are
        anomalous, the decision is "none".
        """
        self._verdicts.append(verdict)
        said = self._said()
        if said == "none":
            self._decided, self._times = said, 0
            return said
        self._times = self._times + 1 if said == self._other else 1
        self._other = said
        if said == self._decided or self._times >= self._options.debounce:
            self._decided = said
        return self._decided

    def _said(self) -> Verdict:
        counts = Counter(self._verdicts)
        if counts["anomalous"] >= self._options.least:
            return "anomalous"
        # good once the rest of the window, whatever it were, could not make it anomalous
        enough = counts["good"] > self._options.frames - self._options.least
        return "good" if enough else "none"


class Deciders:
    """A `Decider` for each source; one begins anew where its source was lost, or is judged by another threshold."""

    def __init__(self, options: DecideOptions) -> None:
        self._options = options
        self._deciders: dict[str, Decider] = {}
        self._states: dict[str, tuple[object, ...]] = {}

    def add(self, source: str, verdict: Verdict, *state: object) -> Verdict:
        """Return the decision for `source`; `state` is all that must not change within a window."""
        decider = self._deciders.setdefault(source, Decider(self._options))
        if self._states.setdefault(source, state) != state:
            decider.reset()
            self._states[source] = state
        return decider.add(verdict)
