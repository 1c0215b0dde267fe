"""The console: a line a judgement; on a terminal, for cameras, one line that changes."""

import sys
from collections.abc import Callable

from runtime.common.closing import Closing
from runtime.common.notices import encoded, escaped
from runtime.sinks.judgement import Judgement
from runtime.sinks.queueing import Queueing
from runtime.sinks.stdout import Stdout

CLEAR_LINE = "\x1b[K"  # from the cursor to the end of the terminal's line


class ConsoleSink(Closing):
    """Prints judgements on stdout, with their source where there are `several`.

    With `live` sources and a terminal it is one line, which ends with what `status` returns. `gone`: nobody reads
    stdout any more.
    """

    name = "console"
    queueing = Queueing(capacity=256, keep="newest", pictures=False)

    def __init__(self, several: bool = False, live: bool = False) -> None:
        self.status: Callable[[], str] = lambda: ""
        self._several = several
        self._stdout = Stdout()
        self._one_line = live and sys.stdout is not None and sys.stdout.isatty()
        self._begun = False  # whether the one line is to be ended

    @property
    def gone(self) -> bool:
        """Whether the reader of stdout has gone."""
        return self._stdout.gone

    def write(self, judgement: Judgement) -> None:
        """Print one judgement. Raises `OSError` for a full disk or a reader that has gone."""
        line = _line(judgement, self._several)
        if self._one_line:
            line, self._begun = f"\r{CLEAR_LINE}{line}{self.status()}", True
        else:
            line += "\n"
        self._stdout.write(encoded(sys.stdout, line))

    def close(self) -> None:
        """End the one line; a second call does nothing."""
        begun, self._begun = self._begun, False
        if begun:
            self._stdout.write(b"\n")


def _line(judgement: Judgement, several: bool) -> str:
    result = judgement.result
    score = "no score" if result.score is None else f"{result.score:.4f}"
    verdict = f"no verdict: {result.reason}" if result.verdict == "none" else result.verdict
    line = f"{judgement.frame.name}  {score}  {verdict}"
    line = f"{judgement.source}  {line}" if several else line
    if judgement.decision is not None:
        line += f"  decision: {judgement.decision}"
    if judgement.trigger is not None:
        line += f"  part {judgement.trigger.part}  {judgement.answer_ms:.1f} ms"
    return escaped(line)  # a file's name may hold a line's end, and look like a verdict
