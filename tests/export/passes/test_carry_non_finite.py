"""NaN and infinities in front of the score come out of it, in both CPU engines; finite values keep their bits."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper

from export.passes import carry_non_finite
from runtime.engines.any_onnx import open_onnxruntime, open_openvino
from tests.support.export_fixtures import exported, small_config
from tests.support.graph_text import model_of

ENGINES = {
    "onnxruntime": lambda model, shape: open_onnxruntime(model.SerializeToString(), 1),
    "openvino": lambda model, shape: open_openvino(model.SerializeToString(), 1, "float32", shape),
}
SCORE = """
    a = Add(x, shift)
    {limited}
    map = Sub(one, p)
    score = ReduceMax<axes = [1, 2], keepdims = 0>(map)
"""
LIMITS = {
    "all places alike": "limited = Min(a, zero)\n    p = Exp(limited)",
    "by place": "limited = Min(a, places)\n    levelled = Sub(limited, places)\n    p = Exp(levelled)",
}


def score_model(limit: str = "all places alike") -> onnx.ModelProto:
    places = -np.random.default_rng(1).exponential(0.3, (4, 5)).round(1)
    limits = {"zero": np.zeros(1)} if limit == "all places alike" else {"places": places}
    constants = {**limits, "one": np.ones(1), "shift": np.full(1, -0.5)}
    outputs = "float[B,4,5] map, float[B] score"
    return model_of(SCORE.format(limited=LIMITS[limit]), "float[B,4,5] x", outputs, opset=17, **constants)


def carried(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    graph = gs.import_onnx(model)
    count = carry_non_finite.run(graph)
    result = gs.export_onnx(graph)
    onnx.checker.check_model(result, full_check=True)
    return result, count.matches


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_frame_with_it_has_no_finite_score_and_its_neighbour_is_unchanged(engine, value, limit):
    model, matches = carried(score_model(limit))
    assert matches == 1
    x = np.random.default_rng(0).normal(-1, 1, (2, 4, 5)).astype(np.float32)
    run, plain = ENGINES[engine](model, x.shape), ENGINES[engine](score_model(limit), x.shape)
    clean = plain(x)
    for before, after in zip(clean, run(x), strict=True):
        assert np.array_equal(before, after)
    x[1, 2, 3] = value
    found = run(x)
    assert np.isnan(found[1][1]) and np.isnan(found[0][1]).all()
    assert np.array_equal(found[0][0], clean[0][0]) and found[1][0] == clean[1][0]


def test_without_it_openvino_swallows_nan():
    """Why the pass is there: when this fails, the engine has learnt to carry NaN itself."""
    x = np.full((1, 4, 5), -1, np.float32)
    x[0, 2, 3] = np.nan
    assert np.isfinite(ENGINES["openvino"](score_model(), x.shape)(x)[1]).all()


def test_it_is_added_once_and_only_where_the_pattern_stands():
    model, _ = carried(score_model())
    again, matches = carried(model)
    assert matches == 0 and len(again.graph.node) == len(model.graph.node)
    other = model_of("map = Exp(x)\nscore = ReduceMax<axes = [1, 2], keepdims = 0>(map)", "float[B,4,5] x",
                     "float[B,4,5] map, float[B] score", opset=17)  # fmt: skip
    assert carried(other)[1] == 0


@pytest.mark.parametrize("tensor", ["subnet2", "norm_factor"])
def test_a_detector_with_such_a_weight_in_a_decoder_gives_no_score(tensor):
    case = exported(small_config())
    model = onnx.ModelProto()
    model.CopyFrom(case.fused)
    named = [t for t in model.graph.initializer if tensor in t.name and t.name.startswith("layer1/")]
    spoiled = numpy_helper.to_array(named[0]).copy()
    spoiled.flat[0] = np.nan
    named[0].CopyFrom(numpy_helper.from_array(spoiled, named[0].name))
    for engine in ENGINES.values():
        anomaly_map, score = engine(model, case.frames.shape)(case.frames)
        assert np.isnan(score).all() and np.isnan(anomaly_map).all()
