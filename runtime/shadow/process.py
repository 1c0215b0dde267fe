"""A candidate's process as the inspection sees it: one frame there, one answer back, and all may go wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from runtime.common.child import Child, Gone
from runtime.common.errors import UserError
from runtime.images.pixels import Image8
from runtime.shadow.candidate import Candidate

OPEN_S = 600.0  # that an engine may take to be opened, a plan of a large one on a busy machine too
ANSWER_S = 60.0  # that a frame may take where nearly nothing is left of the machine


class Process(Child):
    """`candidate`, judging in a process of its own; `load` are the options of `runtime.load` but the threads.

    `gently`: it is opened at the lowest priority too, for a line judges meanwhile. Raises `UserError` where it cannot
    be opened. One thread calls everything.
    """

    def __init__(self, candidate: Candidate, load: Mapping[str, Any], gently: bool) -> None:
        super().__init__("runtime.shadow.worker")
        asked = {
            "engine": candidate.path.absolute() if isinstance(candidate.path, Path) else candidate.path,
            "sha256": candidate.sha256,
            "limits": candidate.limits,
            "load": dict(load),
            "gently": gently,
        }
        try:
            said = self.ask(asked, OPEN_S)
            if "error" in said:
                raise UserError(f"{candidate.path.name}: {said['error']}")
            self.map_size: tuple[int, int] = said["map_size"]
            self.device: str = said["device"]
        except Gone as error:
            self.close()
            raise UserError(f"{candidate.path.name} must open in a process of its own", str(error)) from None
        except BaseException:
            self.close()
            raise

    def judge(self, task: Mapping[str, Any], image: Image8) -> dict[str, Any]:
        """Return what the candidate says of a frame: "error", or a verdict. Raises `Gone`; then it is to be closed.

        The image is sent as it lies in memory: to copy it would keep the inspection from Python's lock.
        """
        whole = np.ascontiguousarray(image)
        said: dict[str, Any] = self.ask({**task, "shape": whole.shape}, ANSWER_S, whole.data.cast("B"))
        return said
