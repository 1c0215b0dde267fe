"""The page's own errors: counted for ever, said once each."""

import threading
from collections import Counter

from runtime.common.notices import say


class Troubles:
    """Counts errors by kind; the first of each kind goes to stderr as one line."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, error: BaseException | str, count: int = 1) -> None:
        """Count `count` errors of `kind`, a short fixed word; `error` is the first of them."""
        with self._lock:
            first = kind not in self._counts
            self._counts[kind] += count
        if first:
            text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
            line = f"web page, {kind}: {text} (said once; the page's metrics count the next ones)"
            say(" ".join(line.split()))

    def counts(self) -> dict[str, int]:
        """Return how often each kind came."""
        with self._lock:
            return dict(self._counts)
