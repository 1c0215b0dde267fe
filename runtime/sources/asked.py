"""A camera that takes a picture when it is told to: triggered part after part, from a thread of its own."""

import threading
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from runtime.common.errors import UserError
from runtime.common.notices import say, worth_saying
from runtime.sources.frame import Source
from runtime.sources.settings import CameraSettings
from runtime.triggers.orders import Orders
from runtime.triggers.station import Kind

FILE = "file"  # the state of a source whose frames are all there


@runtime_checkable
class SoftwareTriggered(Protocol):
    """A source that exposes a frame when told to, and gives none otherwise."""

    def software_trigger(self) -> None:
        """Take one picture now; raises `UserError` or `OSError` where the camera does not obey."""
        ...


@runtime_checkable
class Adjustable(Protocol):
    """A source that may take other settings while it runs; `adjustable` says whether it does."""

    @property
    def adjustable(self) -> bool:
        """Whether `adjust` can be called."""
        ...

    def adjust(self, settings: CameraSettings) -> None:
        """Set the camera, from now on; raises `UserError` for what it does not take."""
        ...

    def reopen(self, why: str) -> None:
        """Open the camera anew, set to what it was last asked for, before another frame of it counts."""
        ...


def adjustable(source: Source) -> Adjustable | None:
    """Return `source` where it takes settings while it runs, else None."""
    return source if isinstance(source, Adjustable) and source.adjustable else None


def kind_of(source: Source) -> Kind:
    """Return how frames of `source` come after a trigger (`runtime.triggers.station`)."""
    if source.software_triggered:
        return "fired"
    if source.live:
        return "free"
    return "files" if source.state == FILE else "arriving"


class Firing:
    """Triggers the camera `name` by `fire` as `orders` ask for its frames, until they are closed."""

    def __init__(self, name: str, fire: Callable[[], None], orders: Orders) -> None:
        self._name, self._fire, self._orders = name, fire, orders
        self._failed = 0
        threading.Thread(target=self._run, name=f"trigger of {name}", daemon=True).start()

    def _run(self) -> None:
        while self._orders.to_fire(self._name) is not None:
            self._fire_once()

    def _fire_once(self) -> None:
        try:
            self._fire()
        except (UserError, OSError) as error:  # no frame comes: the deadline answers
            self._failed += 1
            if worth_saying(self._failed):
                say(f"{self._name} cannot be triggered ({self._failed} so far): {error}")
