"""How triggers are answered, and how the line decides by several frames."""

from dataclasses import dataclass

from runtime.common.errors import UserError

MOST_FRAMES = 1000


@dataclass(frozen=True)
class TriggerOptions:
    """How triggers are answered.

    Each within `deadline_s`; at most `queue` wait for their answer at a time. `delay_s` and `skip`: see
    `runtime.triggers.station`. With `each_frame` nothing else triggers: every frame of a camera whose line triggers
    it asks for its own verdict. Its parts are counted or, if `named`, have the ids that are given for them
    (`runtime.triggers.part_ids`).
    """

    deadline_s: float = 1.0
    queue: int = 4
    delay_s: float = 0.0
    skip: int = 2
    each_frame: bool = False
    named: bool = False


@dataclass(frozen=True)
class DecideOptions:
    """Anomalous where `least` of the last `frames` are.

    A decision that changes between good and anomalous is told once `debounce` frames in a row stand for it.
    """

    least: int
    frames: int
    debounce: int = 1

    @classmethod
    def parse(cls, text: str, debounce: int = 1) -> "DecideOptions":
        """Read "3of5". Raises `UserError` for anything else."""
        least, of, frames = text.partition("of")
        whole = of and all(part.isascii() and part.isdigit() for part in (least, frames))
        if not whole or not 1 <= int(least) <= int(frames) <= MOST_FRAMES:
            raise UserError("--decide takes NofM, N of the last M frames", repr(text), "for example 3of5")
        return cls(int(least), int(frames), debounce)
