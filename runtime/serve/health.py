"""Whether frames are being judged: what a watchdog asks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Health:
    """`reason` is empty while all is well; `age_s` is the last judgement's age, None before the first."""

    age_s: float | None
    reason: str

    @property
    def ok(self) -> bool:
        """Whether frames are being judged."""
        return not self.reason


def health(age_s: float | None, limit_s: float, reason: str = "") -> Health:
    """Return the state for a last verdict that is `age_s` old where more than `limit_s` is too old.

    `reason` is why the newest frame has no verdict, where it has none.
    """
    why = f" (no verdict: {reason})" if reason else ""
    if age_s is None:
        return Health(None, f"no frame has been judged yet{why}")
    if age_s > limit_s:
        return Health(age_s, f"the last judgement is {age_s:.1f} s old, more than {limit_s:g} s{why}")
    return Health(age_s, "")
