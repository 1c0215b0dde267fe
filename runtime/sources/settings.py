"""What may be changed of a camera while it runs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CameraSettings:
    """What a camera takes while it runs: exposure in milliseconds (None: as it is) and GenICam's settings by name."""

    exposure_ms: float | None = None
    nodes: tuple[tuple[str, str], ...] = ()
