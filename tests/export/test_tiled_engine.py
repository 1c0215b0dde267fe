"""Engines of tiled detectors: what the graph of a frame says is what torch says of it, tile by tile."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from export.fuse import compare, probe_frames, probe_places
from export.graph.onnx_files import cpu_session, get_info
from export.graph.tiled_frame import find_loop, put_into_frame, tile_network, tiles_at_once
from export.graph.tiled_front import resize_in_front, with_floats_cut
from export.images.parity_images import good_images
from export.images.tile_images import feed, places_of, some_places, tile_of
from export.precisions.answers import answers_of
from export.precisions.typing import to_fp16, to_int8
from runtime.common.errors import UserError
from runtime.images.preprocess import resize
from runtime.images.tiles import TileGrid
from tests.support.export_fixtures import run_model, small_config
from tests.support.tiled_engines import tiled, tiled_detector

# 3 x 3 tiles whose corners are no multiples of the taps' strides, one row and column of them sharing more than others
GRID = TileGrid((150, 200), (64, 96), 16)
CASES = {
    "paper": {"score": "paper"},
    "slimmest": {"score": "place_deviation", "factored": ("layer1",), "pooled": ("layer1",), "halved": ("layer1",)},
    "unconditional": {"conditional": False},
    "hard permutations": {"soft_permutation": False},
}


def config(**changes):
    return small_config(tiles=GRID, **changes)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return tiled(config(**CASES[request.param]))


@pytest.fixture(scope="module")
def plain():
    return tiled(config())


def close(found, case, tolerance=1e-5):
    """Rounding of float32 in another order; a tile at a wrong place differs in the second digit."""
    np.testing.assert_allclose(found[0], case.anomaly_map, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found[1], case.image_score, rtol=0, atol=tolerance)


class TestGraph:
    @pytest.mark.parametrize("at_once", [1, 2, 9])  # 2 of 9 tiles: the last one fills the last group up
    def test_the_fused_graph_says_what_torch_says(self, case, at_once):
        model = put_into_frame(case.fused, at_once)
        onnx.checker.check_model(model, full_check=True)
        close(run_model(model, case.frames), case)

    def test_the_unfused_graph_says_it_too(self, plain):
        close(run_model(put_into_frame(plain.unfused), plain.frames), plain)

    def test_a_tiles_place_is_two_entries_of_two_tables(self, plain):
        names = [node.name for node in plain.fused.graph.node]
        assert sum(name.endswith("/row_of_tile") for name in names) == plain.info.facts.blocks
        assert not any(node.op_type == "Expand" for node in plain.fused.graph.node)
        other_places = [(row, 1) for row, _ in probe_places(plain.info)]
        frames = probe_frames(plain.info)
        here, there = (
            cpu_session(plain.fused).run(None, feed(frames, each)) for each in (probe_places(plain.info), other_places)
        )
        assert np.abs(here[0] - there[0]).max() > 1e-3

    def test_a_wrong_table_is_seen_by_the_comparison(self, plain):
        broken = onnx.ModelProto()
        broken.CopyFrom(plain.fused)
        table = next(t for t in broken.graph.initializer if t.name.endswith("/row_bias"))
        values = onnx.numpy_helper.to_array(table)[::-1].copy()  # rows of tiles upside down
        table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
        frames, places = probe_frames(plain.info), probe_places(plain.info)
        assert compare(plain.unfused, plain.fused, frames, places).exact
        assert not compare(plain.unfused, broken, frames, places).exact

    def test_the_network_comes_out_of_the_loop_as_it_went_in(self, plain):
        whole = put_into_frame(plain.fused, 4)
        assert tiles_at_once(whole) == 3  # three groups of three
        assert list(tile_network(whole).graph.node) == list(plain.fused.graph.node)
        assert put_into_frame(tile_network(whole), 4) == whole

    def test_a_tiled_file_without_its_loop_is_refused(self, plain):
        with pytest.raises(UserError, match="loop over the tiles"):
            tile_network(plain.fused)


class TestFrame:
    def test_each_frame_is_judged_as_if_it_were_alone(self, plain):
        session = cpu_session(put_into_frame(plain.fused, 2), threads=1)
        run = lambda frames: session.run(None, {"frames": frames})  # noqa: E731
        alone = run(plain.frames[1:2])
        run(plain.frames[2:3])
        for again in (run(plain.frames[1:2]), [part[1:2] for part in run(plain.frames)]):
            np.testing.assert_array_equal(again[0], alone[0])
            np.testing.assert_array_equal(again[1], alone[1])

    def test_what_is_not_finite_reaches_the_score_of_its_frame_alone(self, plain):
        broken = onnx.ModelProto()
        broken.CopyFrom(plain.fused)
        table = next(t for t in broken.graph.initializer if t.name.endswith("/row_bias"))
        values = onnx.numpy_helper.to_array(table).copy()
        values[1] = np.nan  # the second row of tiles
        table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
        maps, scores = run_model(put_into_frame(broken), plain.frames[:1])
        assert np.isnan(scores).all()
        assert np.isnan(maps[0, 60:90]).all() and np.isfinite(maps[0, :40]).all()

    def test_a_pixel_of_the_map_stands_for_that_pixel_of_the_frame(self, plain):
        """A small bright spot moves the map around itself, most where it is, wherever it lies: on a seam, too."""
        session = cpu_session(put_into_frame(plain.fused), threads=2)
        grey = np.full((1, *GRID.frame, 3), 128, np.uint8)
        before = session.run(None, {"frames": grey})[0][0]
        for row, column in [(20, 30), (75, 100), (53, 74), (140, 190), (97, 52)]:
            frame = grey.copy()
            frame[0, row - 3 : row + 3, column - 3 : column + 3] = 255
            moved = np.abs(session.run(None, {"frames": frame})[0][0] - before)
            rows, columns = np.nonzero(moved > 0.5 * moved.max())
            assert abs(rows.mean() - row) < 8 and abs(columns.mean() - column) < 8  # two positions of layer1

    def test_frames_of_the_cameras_size_are_resized_first(self, plain):
        model = resize_in_front(put_into_frame(plain.fused), (233, 301))
        onnx.checker.check_model(model)
        frames = np.random.default_rng(0).integers(0, 256, (2, 233, 301, 3), dtype=np.uint8)
        maps, scores = run_model(model, frames)
        small = np.stack([resize(frame, GRID.frame) for frame in frames])
        wanted = run_model(put_into_frame(plain.fused), small)
        np.testing.assert_allclose(scores, wanted[1], rtol=0, atol=1e-2)  # a grey level here and there
        assert np.median(np.abs(maps - wanted[0])) < 1e-3

    @pytest.mark.parametrize("size", [None, (233, 301)])
    def test_with_floats_cut_it_says_the_same(self, plain, size):
        model = put_into_frame(plain.fused, 2)
        model = model if size is None else resize_in_front(model, size)
        frames = np.random.default_rng(0).integers(0, 256, (1, *(size or GRID.frame), 3), dtype=np.uint8)
        floats = with_floats_cut(model)
        assert all(t.elem_type != onnx.TensorProto.UINT8 for t in types_inside(floats))
        for ours, theirs in zip(run_model(floats, frames), run_model(model, frames), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def types_inside(model):
    """The types of all tensors behind the input."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return [value.type.tensor_type for value in inferred.graph.value_info]


class TestPrecisions:
    def test_fp16_and_int8_networks_stay_near(self, plain):
        frames = [frame for frame in plain.frames for _ in range(9)]
        tiles = [tile_of(frame, GRID, place) for frame, place in zip(frames, places_of(GRID) * 3, strict=True)]
        images = good_images(tiles, places_of(GRID) * 3)
        exact = answers_of(plain.fused, images)
        half = answers_of(to_fp16(plain.fused), images)
        assert 0 < np.abs(half.scores - exact.scores).max() < 2e-3
        limits = dict.fromkeys([n for node in plain.fused.graph.node for n in (*node.input, *node.output)], (-8.0, 8.0))
        model = put_into_frame(to_int8(plain.fused, limits), 2)
        body = find_loop(model).attribute[0].g
        assert sum(node.op_type == "QuantizeLinear" for node in body.node) > 10
        assert get_info(model, "").precision == "int8"
        maps, _ = run_model(model, plain.frames)
        assert np.median(np.abs(maps - plain.anomaly_map)) < 0.1

    def test_tables_become_fp16_and_count_for_its_limits(self, plain):
        half = to_fp16(plain.fused)
        tables = [t for t in half.graph.initializer if "/row_bias" in t.name]
        assert len(tables) == plain.info.facts.blocks
        assert {t.data_type for t in tables} == {onnx.TensorProto.FLOAT16}
        large = onnx.ModelProto()
        large.CopyFrom(plain.fused)
        table = next(t for t in large.graph.initializer if t.name.endswith("/row_bias"))
        values = np.full(table.dims, 7e4, np.float32)
        table.CopyFrom(onnx.numpy_helper.from_array(values, table.name))
        with pytest.raises(UserError, match="biases must be below"):
            to_fp16(large)


class TestTiles:
    def test_some_tiles_of_each_frame_show_every_place_in_turn(self):
        grid = TileGrid((3000, 4096), (512, 512), 64)
        chosen = [some_places(grid, number) for number in range(8)]
        assert max(map(len, chosen)) == 8
        assert sorted(place for each in chosen for place in each) == places_of(grid)

    def test_places_come_with_the_tiles(self, plain):
        places = [(0, 0), (2, 1), (1, 2)]
        frame, detector = plain.frames[0], tiled_detector(config())
        tiles = np.stack([tile_of(frame, GRID, place) for place in places])
        with torch.no_grad():
            corners = [(GRID.tops[row], GRID.lefts[column]) for row, column in places]
            maps, scores = detector.judge(detector.model.log_likelihoods(torch.from_numpy(tiles), corners))
        found = answers_of(plain.fused, good_images(list(tiles), places))
        np.testing.assert_allclose(found.maps, maps.numpy(), rtol=0, atol=1e-5)
        np.testing.assert_allclose(found.scores, scores.numpy(), rtol=0, atol=1e-5)
        swapped = replace(good_images(list(tiles), places), places=[(0, 0), (1, 2), (2, 1)])
        assert np.abs(answers_of(plain.fused, swapped).maps - found.maps).max() > 1e-3
