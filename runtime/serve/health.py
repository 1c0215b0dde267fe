"""Whether frames are being judged: what a watchdog asks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Health:
    """`reason` is empty while all is well; `age_s` is the last judgement's age, None before the first.

    `reason` is for everybody; `detail`, which may name sources and files, for those who are signed in.
    """

    age_s: float | None
    reason: str
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether frames are being judged."""
        return not self.reason


def health(age_s: float | None, limit_s: float, source: str = "", reason: str = "") -> Health:
    """Return the state for a last verdict that is `age_s` old where more than `limit_s` is too old.

    `source` is whose verdict it is, one of several, and `reason` why its newest frame has none; empty where it has.
    """
    detail = (f" of {source}" if source else "") + (f" (no verdict: {reason})" if reason else "")
    if age_s is None:
        return Health(None, "no frame has been judged yet", detail)
    if age_s > limit_s:
        return Health(age_s, f"the last judgement is {age_s:.1f} s old, more than {limit_s:g} s", detail)
    return Health(age_s, "")


def triggered_health(age_s: float | None, up: bool, source: str = "", reason: str = "") -> Health:
    """Return the state where only frames are judged that triggers ask for; arguments as those of `health`.

    A line that pauses is well. It is not where the source is not `up`, or the last part got no verdict.
    """
    detail = (f" of {source}" if source else "") + (f" ({reason})" if reason else "")
    if not up:
        return Health(age_s, "a source is lost", detail)
    return Health(age_s, "the last part got no verdict" if reason else "", detail if reason else "")
