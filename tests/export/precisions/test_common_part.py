"""Graphs that differ in a group of layers: what they share is computed once, and no bit of an answer changes by it."""

import functools

import numpy as np
import onnx
import pytest

from export.graph.onnx_files import cpu_session
from export.images.parity_images import good_images
from export.precisions import common_part
from export.precisions.answers import Reference, answers_of
from export.precisions.common_part import judge_rests, rest_of
from export.precisions.int8 import weighted_layers
from export.precisions.ranking import layer_groups
from export.precisions.typing import int8_graph, to_int8
from runtime.common.errors import UserError
from runtime.engines.sidecar import INPUT_NAME, MAP_NAME, SCORE_NAME
from tests.export.precisions.test_int8 import small_ranges
from tests.support.onnx_inspection import SIZE, small_model

IMAGES = good_images(list(np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)))  # two batches


@functools.cache
def common():
    return to_int8(small_model(), small_ranges(), left_out=weighted_layers(small_model()))


def alone(group):
    names = set(weighted_layers(small_model()))
    return int8_graph(small_model(), small_ranges(), names - set(layer_groups(small_model())[group]))


def judged(rests):
    return list(judge_rests(common(), rests, IMAGES, lambda answers: answers))


def in_one_run_each(model):
    """What the command did before: one session, batch after batch."""
    session = cpu_session(model, threads=1)
    parts = [
        session.run([MAP_NAME, SCORE_NAME], {INPUT_NAME: np.stack(IMAGES.frames[start : start + 4])})
        for start in range(0, len(IMAGES), 4)
    ]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


class TestRest:
    def test_every_group_has_the_answers_of_its_whole_graph_to_the_bit(self):
        groups = list(layer_groups(small_model()))
        found = judged([rest_of(common(), alone(group)) for group in groups])
        for group, answers in zip(groups, found, strict=True):
            maps, scores = in_one_run_each(to_int8(small_model(), small_ranges(), left_out=_others(group)))
            assert np.array_equal(answers.maps, maps) and np.array_equal(answers.scores, scores), group

    def test_of_a_taps_decoder_neither_the_encoder_nor_another_tap_is_computed(self):
        rest = rest_of(common(), alone("layer2/subnet2"))
        names = [node.name for node in rest.nodes]
        assert not any(name.startswith(("encoder/", "layer1/")) for name in names)
        assert len(names) < len(common().graph.node) / 2
        assert INPUT_NAME not in rest.border

    def test_its_own_weights_are_the_groups_alone(self):
        rest = rest_of(common(), alone("layer2/subnet2"))
        large = [tensor.name for tensor in rest.own if np.prod(tensor.dims) > 1000]
        ours = set(layer_groups(small_model())["layer2/subnet2"])
        assert {name.removesuffix("/weight/int8") for name in large if name.endswith("/weight/int8")} == ours
        assert not any(name.startswith(("encoder/", "layer1/")) for name in large)

    def test_borders_are_not_where_fp16_is_rounded(self):
        types = {value.name: value.type.tensor_type.elem_type for value in common().graph.value_info}
        for group in layer_groups(small_model()):
            border = set(rest_of(common(), alone(group)).border) - {INPUT_NAME}
            assert {types[name] for name in border} <= {onnx.TensorProto.FLOAT}

    def test_another_weight_far_in_front_is_seen(self):
        other = alone("layer2/subnet2")
        first = next(tensor for tensor in other.graph.initializer if tensor.name == "encoder/bn1/Conv/weight/fp16")
        changed = onnx.numpy_helper.to_array(first).copy()
        changed[0] *= 2
        first.CopyFrom(onnx.numpy_helper.from_array(changed, first.name))
        rest = rest_of(common(), other)
        assert INPUT_NAME in rest.border or any(node.name == "encoder/bn1/Conv" for node in rest.nodes)
        (found,) = judged([rest])
        assert np.array_equal(found.scores, in_one_run_each(other)[1])

    def test_a_graph_of_which_nothing_is_the_same_is_judged_whole(self):
        other = to_int8(small_model(), small_ranges())
        (found,) = judged([rest_of(common(), other)])
        assert np.array_equal(found.maps, in_one_run_each(other)[0])


def _others(group):
    return set(weighted_layers(small_model())) - set(layer_groups(small_model())[group])


class TestMemory:
    def test_where_borders_do_not_fit_some_groups_are_judged_at_a_time(self, monkeypatch):
        rests = [rest_of(common(), alone(group)) for group in layer_groups(small_model())]
        expected = judged(rests)
        runs = []
        borders = common_part._borders
        monkeypatch.setattr(common_part, "_borders", lambda *args: runs.append(len(args[1])) or borders(*args))
        monkeypatch.setattr(common_part, "KEPT_BYTES", 1 << 20)
        found = judged(rests)
        assert len(runs) > 1 and sum(runs) == len(rests)
        assert all(np.array_equal(a.maps, b.maps) for a, b in zip(expected, found, strict=True))

    def test_a_border_has_the_bytes_that_are_counted(self):
        rests = [rest_of(common(), alone(group)) for group in ("encoder/layer2/0", "layer2/subnet2")]
        sizes = {value.name: common_part._bytes_of(value) for value in common().graph.value_info}
        for tensors in common_part._borders(common(), rests, IMAGES):
            count = len(tensors[INPUT_NAME])
            for name, array in tensors.items():
                assert name == INPUT_NAME or array.nbytes == count * sizes[name]


class TestAnswers:
    @pytest.mark.parametrize("cores", [1, 2, 3, 8])
    def test_are_the_same_on_any_number_of_cores(self, cores, monkeypatch):
        monkeypatch.setattr("runtime.common.side_by_side.available_cores", lambda: cores)
        maps, scores = in_one_run_each(small_model())
        found = answers_of(small_model(), IMAGES)
        assert np.array_equal(found.maps, maps) and np.array_equal(found.scores, scores)

    def test_of_the_reference_are_computed_once(self):
        reference = Reference(small_model())
        assert reference.answers(IMAGES) is reference.answers(IMAGES)
        assert reference.answers(IMAGES.spread(2)).scores.shape == (2,)

    def test_that_are_not_finite_are_an_error_in_a_rest_too(self):
        other = alone("layer2/subnet2")
        scale = next(tensor for tensor in other.graph.initializer if tensor.name.endswith("/weight/scale"))
        broken = onnx.numpy_helper.to_array(scale).copy()
        broken[:] = np.nan
        scale.CopyFrom(onnx.numpy_helper.from_array(broken, scale.name))
        with pytest.raises(UserError, match="every score must be finite"):
            judged([rest_of(common(), other)])
