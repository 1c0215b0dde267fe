"""How much the page lets visitors have, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the page's process; every time in seconds.

    `connections` are open at once: one more takes the place of the one that is missed least. One that asks nothing
    whole for `idle_s`, or takes no byte of its answer for `stuck_s`, is ended; both are looked at every `sweep_s`. A
    body may come for `reading_s`. A request for a live picture waits `long_poll_s` for one, a wrong token
    `wrong_token_s` for its answer. A report is shared for `fresh_s`: twenty screens cost the inspection what one costs.
    """

    connections: int = 600
    idle_s: float = 20.0
    stuck_s: float = 30.0
    sweep_s: float = 5.0
    reading_s: float = 10.0
    long_poll_s: float = 10.0
    wrong_token_s: float = 1.0
    fresh_s: float = 0.5


BODY_BYTES = 16 * 1024  # the largest body that an action may have
KEEP_ALIVE_S = 30.0
LINGER_S = 1.0  # for the rest of a body that was refused
GOODBYE_S = 2.0  # for answers under way when the run ends
ANSWER_S = 5.0  # for the inspection to answer its page's process; after that it is taken to hang
MARK_S = 30.0  # for a judgement to come into the log, and a picture and a mark onto a slow disk
THRESHOLD_S = 120.0  # to read a whole engine file, which its sidecar is checked against
PROMOTION_S = 600.0  # to open an engine beside the one that judges
TRIGGER_S = 86_400.0  # for the answer to a trigger, which comes at its deadline at the latest
