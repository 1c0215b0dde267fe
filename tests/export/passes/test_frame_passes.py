"""The rewrites at the graph's two ends: the frames' normalisation, and the taps' maps."""

import numpy as np
import pytest
import torch.nn.functional as F
from torch import from_numpy

from export.passes import maps_as_products, normalisation_into_stem
from runtime.images.interpolation import interpolation
from tests.support.graph_text import assert_rewritten, assert_untouched, model_of, normal


@pytest.fixture
def rng():
    return np.random.default_rng(3)


class TestNormalisationIntoStem:
    REWRITE = normalisation_into_stem.REWRITE
    BODY = """
        scaled = Mul(x, s)
        shifted = Sub(scaled, o)
        y = Conv<pads = [1, 1, 1, 1]>(shifted, w, b)
    """
    PADDED = """
        scaled = Mul(x, s)
        shifted = Sub(scaled, o)
        padded = Pad<mode = "reflect">(shifted, pads)
        y = Conv(padded, w, b)
    """

    def model(self, rng, body=BODY, outputs="float[2,4,6,7] y", **changes):
        constants = {"s": 0.5 + rng.random((1, 3, 1, 1)), "o": normal(rng, 1, 3, 1, 1), "w": normal(rng, 4, 3, 3, 3)}
        constants["b"] = normal(rng, 4)
        pads = {"pads": [0, 0, 1, 1] * 2} if "pads)" in body else {}
        return model_of(body, "float[2,3,6,7] x", outputs, **{**constants, **pads, **changes})

    @pytest.mark.parametrize("body", [BODY, PADDED, BODY.replace("Sub", "Add")], ids=["zeros", "reflect", "add"])
    def test_applies(self, rng, body):
        operators = assert_rewritten(self.model(rng, body), self.REWRITE, x=normal(rng, 2, 3, 6, 7))
        assert "Mul" not in operators and operators[-1] == "Conv"

    def test_refuses_a_normalised_frame_that_is_read_elsewhere(self, rng):
        model = self.model(rng, outputs="float[2,4,6,7] y, float[2,3,6,7] shifted")
        assert_untouched(model, self.REWRITE, "read elsewhere")

    def test_refuses_a_scale_by_column(self, rng):
        assert_untouched(self.model(rng, s=normal(rng, 1, 1, 1, 7)), self.REWRITE, "for each of 3 channels")

    def test_refuses_a_scale_of_zero(self, rng):
        assert_untouched(self.model(rng, s=np.zeros((1, 3, 1, 1))), self.REWRITE, "is zero")

    def test_refuses_another_padding(self, rng):
        body = self.PADDED.replace("reflect", "constant")  # zeros behind the normalisation, not the mean's colour
        assert_untouched(self.model(rng, body), self.REWRITE, "something else than itself")

    def test_refuses_groups(self, rng):
        body = self.BODY.replace("Conv<", "Conv<group = 3, ")
        model = self.model(rng, body, "float[2,6,6,7] y", w=normal(rng, 6, 1, 3, 3), b=normal(rng, 6))
        assert_untouched(model, self.REWRITE, "ungrouped")


def resized(name, source, target):
    return f"""
        {name}u = Unsqueeze({source}, one)
        {name}b = Shape<start = 0, end = 1>({name}u)
        {name}s = Concat<axis = 0>({name}b, {target})
        {name}r = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">({name}u, , , {name}s)
        {name} = Squeeze({name}r, one)
    """


class TestMapsAsProducts:
    REWRITE = maps_as_products.REWRITE
    MAPS = "p = Reshape(x, fine)\nq = Reshape(z, coarse)\n" + resized("up", "p", "size") + resized("uq", "q", "size")
    BODY = MAPS + "a = Sub(unit, up)\nb = Sub(unit, uq)\ny = Add(a, b)"
    CONSTANTS = {  # noqa: RUF012
        **{"fine": [-1, 4, 6], "coarse": [-1, 2, 3], "one": [1], "unit": 1.0, "size": [1, 16, 23]},
    }

    def model(self, body=BODY, outputs="float[2,16,23] y", **changes):
        constants = {name: v for name, v in {**self.CONSTANTS, **changes}.items() if name in body}
        return model_of(body, "float[48] x, float[12] z", outputs, **constants)

    def feeds(self, rng):
        return {"x": normal(rng, 48), "z": normal(rng, 12)}

    def test_applies(self, rng):
        operators = assert_rewritten(self.model(), self.REWRITE, **self.feeds(rng))
        assert operators == ["Reshape", "Reshape", "MatMul", "MatMul", "Concat", "MatMul", "Add"]

    def test_a_map_of_the_targets_size_is_subtracted(self, rng):
        body = "p = Reshape(x, fine)\nq = Reshape(z, coarse)\n" + resized("uq", "q", "size")
        body += "a = Sub(unit, p)\nb = Sub(unit, uq)\ny = Add(a, b)"
        model = self.model(body, "float[2,4,6] y", size=[1, 4, 6])
        operators = assert_rewritten(model, self.REWRITE, **self.feeds(rng))
        assert operators == ["Reshape", "Reshape", "MatMul", "MatMul", "Sub", "Add"]

    def test_one_map_needs_no_concatenation(self, rng):
        body = "p = Reshape(x, fine)\nq = Relu(z)\n" + resized("up", "p", "size") + "y = Sub(unit, up)"
        operators = assert_rewritten(self.model(body, "float[2,16,23] y, float[12] q"), self.REWRITE, **self.feeds(rng))
        assert operators.count("MatMul") == 2 and "Concat" not in operators

    def test_leaves_the_upsampled_map_to_a_second_reader(self, rng):
        model = self.model(self.BODY + "\nw = Relu(up)", "float[2,16,23] y, float[2,16,23] w")
        assert "Resize" in assert_rewritten(model, self.REWRITE, **self.feeds(rng))

    def test_does_not_see_another_way_to_interpolate(self):
        body = self.BODY.replace("align_corners", "half_pixel")
        assert_untouched(self.model(body), self.REWRITE)

    def test_does_not_see_a_sum_without_maps(self):
        body = "p = Reshape(x, fine)\na = Sub(unit, p)\nb = Sub(unit, p)\ny = Add(a, b)\nq = Relu(z)"
        assert_untouched(self.model(body, "float[2,4,6] y, float[12] q"), self.REWRITE)

    def test_refuses_a_term_of_another_kind(self):
        body = self.MAPS + "a = Sub(unit, up)\nb = Exp(uq)\ny = Add(a, b)"
        assert_untouched(self.model(body), self.REWRITE, "no sum of 1 - map")

    @pytest.mark.parametrize(("inputs", "outputs"), [((4, 6), (16, 23)), ((1, 3), (5, 3)), ((7, 2), (7, 64))])
    def test_the_matrices_are_torchs(self, rng, inputs, outputs):
        image = normal(rng, 1, 1, *inputs).astype(np.float64)
        rows, columns = (interpolation(o, i) for i, o in zip(inputs, outputs, strict=True))
        expected = F.interpolate(from_numpy(image), outputs, mode="bilinear", align_corners=True).numpy()
        np.testing.assert_allclose(rows @ image[0, 0] @ columns.T, expected[0, 0], rtol=0, atol=1e-12)
