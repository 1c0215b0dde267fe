"""The ranking of layers by what INT8 costs them, and the automatic choice of those that it leaves out."""

import functools

import numpy as np
import pytest

from export import sensitivity
from export.graph.onnx_files import save_model
from export.images.parity_images import good_images
from export.precisions.answers import Reference
from export.precisions.int8 import permutation_layers, weighted_layers
from export.precisions.opt_out import Search, left_out_by_default
from export.precisions.parity import Budget
from export.precisions.ranking import int8_share, layer_groups, multiply_adds, rank_groups, ranking_table
from export.precisions.typing import to_fp16, to_int8
from runtime.common.errors import UserError
from tests.export.precisions.test_int8 import small_ranges
from tests.support.export_fixtures import CALIBRATION_DATA, exported, small_config
from tests.support.measured_parity import measure_parity
from tests.support.onnx_inspection import SIZE, mobilenet, nodes_of, small_model


@functools.cache
def images():
    frames = exported(small_config()).frames
    return good_images(list(np.concatenate([frames, frames[:, ::-1], frames[:, :, ::-1]])))


@functools.cache
def ranked():
    return rank_groups(Reference(small_model()), small_ranges(), images(), 1.0)


class TestGroups:
    @pytest.mark.parametrize("model", [small_model, mobilenet])
    def test_every_weighted_layer_is_in_one(self, model):
        groups = layer_groups(model())
        layers = [layer for group in groups.values() for layer in group]
        assert sorted(layers) == sorted(weighted_layers(model()))

    def test_are_the_encoders_blocks_and_the_taps_kinds_of_layers(self):
        kinds = {f"layer{tap}/{kind}" for tap in (1, 2) for kind in ("subnet0", "subnet2", "permutation")}
        blocks = {"encoder/bn1", *(f"encoder/layer{stage}/{block}" for stage in (1, 2) for block in (0, 1))}
        assert set(layer_groups(small_model())) == kinds | blocks
        assert layer_groups(small_model())["layer1/subnet2"] == tuple(
            f"layer1/block{block}/subnet2/{half}" for block in (0, 1) for half in ("scale", "shift")
        )

    def test_multiply_adds_are_those_of_a_frame(self):
        spent = multiply_adds(small_model())
        height, width = SIZE
        assert spent["encoder/bn1/Conv"] == (height // 2) * (width // 2) * 64 * 3 * 7 * 7
        assert spent["layer2/block0/permutation/active"] == (height // 8) * (width // 8) * 64 * 128
        assert set(spent) == set(weighted_layers(small_model())) and min(spent.values()) > 0

    def test_share_is_of_all_multiply_adds(self):
        names = weighted_layers(small_model())
        assert int8_share(small_model(), ()) == 1 and int8_share(small_model(), names) == 0
        spent = multiply_adds(small_model())
        assert int8_share(small_model(), names[:1]) == pytest.approx(1 - spent[names[0]] / sum(spent.values()))


class TestRanking:
    @pytest.fixture
    def ranking(self):
        return ranked()

    def test_costs_are_those_of_the_group_quantised_alone(self, ranking):
        cost = ranking[3]
        others = set(weighted_layers(small_model())) - set(cost.layers)
        alone = to_int8(small_model(), small_ranges(), left_out=others)
        weights = nodes_of(alone, "DequantizeLinear")
        assert len([node for node in weights if node.name.endswith("/weight/DQ")]) == len(cost.layers)
        assert cost.parity == measure_parity(small_model(), alone, images(), 1.0)

    def test_is_complete_and_the_costliest_is_first(self, ranking):
        assert {cost.name for cost in ranking} == set(layer_groups(small_model()))
        assert sum(cost.share for cost in ranking) == pytest.approx(1)
        points = [cost.points for cost in ranking]
        assert points == sorted(points, reverse=True) and points[0] > 2 * points[-1]

    def test_table_marks_what_stays_fp16(self, ranking):
        lines = ranking_table(ranking, ranking[0].layers).splitlines()
        assert [line.split()[0] for line in lines[1:]] == [cost.name for cost in ranking]
        assert [line.endswith("FP16") for line in lines[1:]] == [True] + [False] * (len(ranking) - 1)

    def test_command_prints_it(self, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(sensitivity, "RANKING_IMAGES", 2)
        save_model(small_model(), tmp_path / "cable.onnx")
        sensitivity.main([str(tmp_path / "cable.onnx"), "--calibration-data", str(CALIBRATION_DATA)])
        assert len(capsys.readouterr().out.splitlines()) == 1 + len(layer_groups(small_model()))

    @pytest.mark.parametrize("model", ["unfused", "fp16"])
    def test_command_refuses_other_graphs(self, model, tmp_path):
        graph = to_fp16(small_model()) if model == "fp16" else exported(small_config()).unfused
        save_model(graph, tmp_path / "cable.onnx")
        with pytest.raises(UserError, match=f"must be a fused FP32 graph; found .*{model}"):
            sensitivity.main([str(tmp_path / "cable.onnx")])


def search(budget, model=None, always=None):
    model = model or small_model()
    always = permutation_layers(model) if always is None else always
    return Search(Reference(model), small_ranges(), images(), 1.0, Budget(budget, budget), frozenset(always))


class TestChoice:
    def test_a_wide_budget_frees_nothing_and_ranks_nothing(self):
        choice = search(100).choose()
        assert (choice.freed, choice.ranking) == ((), ())
        assert choice.left_out == permutation_layers(small_model())

    def test_frees_the_costliest_and_no_more_than_it_takes(self):
        everything = search(100).choose().parity
        budget = max(everything.image_cost, everything.pixel_cost) / 3
        choice = search(budget).choose()
        names = [cost.name for cost in choice.ranking if not cost.name.endswith("/permutation")]
        count = len(choice.freed)
        assert 1 <= count < len(names) and list(choice.freed) == names[:count]
        assert not Budget(budget, budget).excess(choice.parity)
        assert choice.parity == measure_parity(small_model(), choice.model, images(), 1.0)
        by_name = {cost.name: cost.layers for cost in choice.ranking}
        fewer = choice.left_out - set(by_name[choice.freed[-1]])
        one_less = measure_parity(small_model(), to_int8(small_model(), small_ranges(), left_out=fewer), images(), 1.0)
        assert Budget(budget, budget).excess(one_less)

    def test_a_budget_that_nothing_meets_frees_all_and_says_what_is_left(self):
        choice = search(0).choose()
        assert choice.left_out == set(weighted_layers(small_model())) and choice.int8_share == 0
        assert Budget(0, 0).excess(choice.parity)

    def test_permutations_are_out_unless_asked_for(self):
        assert left_out_by_default(small_model(), quantise_permutations=False) == permutation_layers(small_model())
        assert left_out_by_default(small_model(), quantise_permutations=True) == frozenset()
        choice = search(0, always=()).choose()
        assert {"layer1/permutation", "layer2/permutation"} <= set(choice.freed)

    def test_without_images_the_default_is_taken_and_nothing_measured(self):
        choice = search(0).default()
        assert (choice.parity, choice.freed, choice.left_out) == (None, (), permutation_layers(small_model()))
