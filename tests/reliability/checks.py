"""Which checks there are, in order: those that fork come first, for a fork must find no threads."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec

from tests.reliability.result import Result, Scale, Skipped

FORKING = ("kills", "disks", "writers", "sinks")
OTHERS = ("camera", "hostile", "fuzz", "page_load", "soak")
NAMES = tuple(name for name in (*FORKING, *OTHERS) if find_spec(f"tests.reliability.{name}"))


def run_check(name: str, scale: Scale) -> list[Result]:
    """Run one check; one that cannot run here is a row without tries, which says why."""
    if name in FORKING:
        import torch

        torch.set_num_threads(1)  # threads would not survive a fork
    run: Callable[[Scale], list[Result]] = importlib.import_module(f"tests.reliability.{name}").run
    try:
        return run(scale)
    except Skipped as reason:
        return [Result(name, f"not tried here: {reason}", 0, 0)]
