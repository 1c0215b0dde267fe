"""How many threads torch computes with: by itself it takes all cores, also where a container may use fewer."""

import torch

from runtime.common.machine import available_cores


def use_available_cores() -> None:
    """Let torch compute with no more threads than this process may use cores."""
    if torch.get_num_threads() > available_cores():
        torch.set_num_threads(available_cores())
