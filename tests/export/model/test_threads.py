"""torch's threads in a container that may use fewer cores than the machine has."""

import pytest
import torch

from export.graph import onnx_files
from export.model import threads
from tests.support.small_graphs import small_model


def test_torch_takes_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(threads, "available_cores", lambda: 3)
        threads.use_available_cores()
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)  # who asked for fewer keeps them
        threads.use_available_cores()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_graph_that_is_compared_runs_on_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "available_cores", lambda: 3)
    assert onnx_files.cpu_session(small_model()).get_session_options().intra_op_num_threads == 3
