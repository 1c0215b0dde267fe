"""A detector's parts: what its encoder and its decoders end in."""

import numpy as np
import pytest

from export.graph.flops import count_flops
from export.graph.parts import encoder_taps, likelihood_tensors, up_to
from runtime.common.errors import UserError
from runtime.engines.any_onnx import open_onnxruntime, open_openvino
from runtime.engines.sidecar import INPUT_NAME
from tests.support.export_fixtures import exported, run_model, small_config


def test_the_encoder_alone_gives_the_taps_of_the_whole():
    detector = exported(small_config())
    taps = encoder_taps(detector.fused)
    alone = up_to(detector.fused, taps)
    names = {node.name for node in alone.graph.node}
    assert len(taps) == 2 and all(name.startswith(("encoder/", "normalise/")) for name in names)
    frames, source = detector.frames[:1], alone.SerializeToString()
    outputs = open_onnxruntime(source, 1)(frames)
    assert {output.shape for output in outputs} == {(1, 64, 16, 24), (1, 128, 8, 12)}
    for output, other in zip(outputs, open_openvino(source, 1, "float32", frames.shape)(frames), strict=True):
        np.testing.assert_allclose(output, other, atol=1e-4)  # float32 sums of some hundred terms near 1
    assert count_flops(alone, {INPUT_NAME: frames}) < count_flops(detector.fused, {INPUT_NAME: frames})
    with pytest.raises(UserError, match="must end in tensors of decoders"):
        encoder_taps(alone)


def test_the_papers_clock_stops_at_the_likelihoods():
    case = exported(small_config())
    tensors = likelihood_tensors(case.fused)
    assert len(tensors) == len(case.info.sidecar.taps)
    cut = up_to(case.fused, tensors)
    assert not [node for node in cut.graph.node if node.name.startswith("score/")]
    session_maps = run_model(cut, case.frames)
    height, width = case.info.sidecar.input_size
    assert sorted(values.shape[-2:] for values in session_maps) == [
        (height // 8, width // 8),
        (height // 4, width // 4),
    ]
    with pytest.raises(UserError, match="must end in tensors of the score"):
        likelihood_tensors(cut)
