"""The rewrites of whole couplings and decoders: separate halves, the affine before its coupling, images for fibers."""

import numpy as np
import pytest

from export.passes import affine_before_coupling, fibers_into_images, separate_halves
from tests.support.graph_text import assert_rewritten, assert_untouched, model_of, normal, rewritten


@pytest.fixture
def rng():
    return np.random.default_rng(3)


class TestSeparateHalves:
    REWRITE = separate_halves.REWRITE
    SPLIT = """
        y = Gemm<transB = 1>(x, w, b)
        p, q = Split<axis = 1>(y, sizes)
    """
    SLICES = """
        y = Gemm<transB = 1>(x, w, b)
        q = Slice(y, three, most, one, one)
        p = Slice(y, zero, three, one, one)
    """
    GATHER = """
        y = Gather<axis = 1>(x, order)
        p, q = Split<axis = 1>(y, sizes)
    """

    def model(self, rng, body=SPLIT, outputs="float[5,3] p, float[5,3] q", **changes):
        constants = {
            **{"w": normal(rng, 6, 6), "b": normal(rng, 6), "sizes": [3, 3], "order": rng.permutation(6)},
            **{"zero": [0], "one": [1], "three": [3], "most": [2**62], **changes},
        }
        used = {name: value for name, value in constants.items() if name in body}
        return model_of(body, "float[5,6] x", outputs, **used)

    @pytest.mark.parametrize("body", [SPLIT, SPLIT.replace(", b)", ")"), SLICES.replace("most", "six")])
    def test_applies_to_a_product(self, rng, body):
        assert assert_rewritten(self.model(rng, body, six=[6]), self.REWRITE, x=normal(rng, 5, 6)) == ["Gemm", "Gemm"]

    def test_applies_to_slices_to_the_end(self, rng):
        assert assert_rewritten(self.model(rng, self.SLICES), self.REWRITE, x=normal(rng, 5, 6)) == ["Gemm", "Gemm"]

    def test_applies_to_unequal_halves(self, rng):
        model = self.model(rng, outputs="float[5,2] p, float[5,4] q", sizes=[2, 4])
        assert assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 6)) == ["Gemm", "Gemm"]

    def test_applies_to_a_hard_permutation(self, rng):
        assert assert_rewritten(self.model(rng, self.GATHER), self.REWRITE, x=normal(rng, 5, 6)) == ["Gather"] * 2

    def test_does_not_see_a_whole_that_is_read(self, rng):
        model = self.model(rng, self.SPLIT + "z = Relu(y)", "float[5,3] p, float[5,3] q, float[5,6] z")
        assert_untouched(model, self.REWRITE)

    def test_refuses_a_whole_that_is_an_output(self, rng):
        assert_untouched(self.model(rng, outputs="float[5,3] p, float[5,3] q, float[5,6] y"), self.REWRITE, "an output")

    def test_refuses_slices_that_overlap(self, rng):
        body = self.SLICES.replace("y, three", "y, two")
        model = self.model(rng, body, "float[5,3] p, float[5,4] q", two=[2])
        assert_untouched(model, self.REWRITE, "0..3 and 2..")

    def test_does_not_see_slices_of_positions(self, rng):
        body = self.SLICES.replace("most, one,", "most, zero,").replace("three, one,", "three, zero,")
        assert_untouched(self.model(rng, body, "float[3,6] p, float[2,6] q"), self.REWRITE)


def coupling(passive="p", active="q", result="v", tag=""):
    """A coupling of two halves and the global affine behind it; `tag` tells its inner names apart."""
    return f"""
        h{tag} = Gemm<transB = 1>({passive}, w1)
        r{tag} = Relu(h{tag})
        a{tag} = Gemm<transB = 1>(r{tag}, ws, bs)
        t{tag} = Gemm<transB = 1>(r{tag}, wt, bt)
        e{tag} = Exp(a{tag})
        m{tag} = Mul({active}, e{tag})
        n{tag} = Add(m{tag}, t{tag})
        z{tag} = Concat<axis = 1>({passive}, n{tag})
        u{tag} = Mul(z{tag}, g)
        {result} = Add(u{tag}, o)
    """


COUPLING = coupling()


class TestAffineBeforeCoupling:
    REWRITE = affine_before_coupling.REWRITE
    PRODUCTS = """
        p = Gemm<transB = 1>(x, wp, bp)
        q = Gemm<transB = 1>(x, wq)
    """
    GATHERS = """
        k = Mul(x, g0)
        l = Add(k, o0)
        p = Gather<axis = 1>(l, first)
        q = Gather<axis = 1>(l, second)
    """
    TAP = "p, q = Split<axis = 1>(x, sizes)"

    def model(self, rng, front=PRODUCTS, body=COUPLING, outputs="float[5,6] v", **changes):
        order = rng.permutation(6)
        constants = {
            **{"wp": normal(rng, 3, 6), "bp": normal(rng, 3), "wq": normal(rng, 3, 6), "sizes": [3, 3]},
            **{"g0": 1 + rng.random((1, 6)), "o0": normal(rng, 1, 6), "first": order[:3], "second": order[3:]},
            **{"w1": normal(rng, 8, 3), "ws": 0.1 * normal(rng, 3, 8), "bs": normal(rng, 3)},
            **{"wt": normal(rng, 3, 8), "bt": normal(rng, 3), "g": 1 + rng.random((1, 6)), "o": normal(rng, 1, 6)},
            **changes,
        }
        text = front + body
        return model_of(
            text, "float[5,6] x", outputs, **{k: v for k, v in constants.items() if f"{k})" in text or f"{k}," in text}
        )

    def test_products_take_it_up(self, rng):
        operators = assert_rewritten(self.model(rng), self.REWRITE, x=normal(rng, 5, 6))
        assert sorted(operators) == sorted(["Gemm"] * 5 + ["Relu", "Exp", "Mul", "Add", "Concat"])

    def test_an_affine_behind_a_hard_permutation_takes_it_up(self, rng):
        operators = assert_rewritten(self.model(rng, self.GATHERS), self.REWRITE, x=normal(rng, 5, 6))
        assert operators.count("Mul") == operators.count("Add") == 2 and operators[:2] == ["Mul", "Add"]

    def test_at_the_tap_it_stands_in_front_of_the_split(self, rng):
        model = self.model(rng, self.TAP)
        result, count = rewritten(model, self.REWRITE)
        assert count.matches == 1 and [node.op_type for node in result.graph.node][:3] == ["Mul", "Add", "Split"]
        assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 6))

    def test_hard_couplings_are_taken_from_the_last_to_the_first(self, rng):
        middle = """
            pp = Gather<axis = 1>(v, second)
            qq = Gather<axis = 1>(v, first)
        """
        model = self.model(rng, self.GATHERS, COUPLING + middle + coupling("pp", "qq", "out", "2"), "float[5,6] out")
        operators = assert_rewritten(model, self.REWRITE, 2, x=normal(rng, 5, 6))
        assert operators.count("Mul") == 3  # one in front of both couplings, and one in each

    def test_refuses_where_the_result_of_the_coupling_is_read_elsewhere(self, rng):
        assert_untouched(self.model(rng, outputs="float[5,6] v, float[5,6] z"), self.REWRITE, "read elsewhere")

    def test_refuses_an_active_half_that_is_read_elsewhere(self, rng):
        model = self.model(rng, body=COUPLING + "y = Relu(q)", outputs="float[5,6] v, float[5,3] y")
        assert_untouched(model, self.REWRITE, "active half")

    def test_refuses_a_passive_half_that_is_read_elsewhere(self, rng):
        model = self.model(rng, body=COUPLING + "y = Relu(p)", outputs="float[5,6] v, float[5,3] y")
        assert_untouched(model, self.REWRITE, "passive half")

    def test_refuses_a_scale_that_cannot_be_taken_back(self, rng):
        assert_untouched(self.model(rng, g=np.full((1, 6), 1e-5)), self.REWRITE, "a scale is below")

    def test_refuses_another_source_of_the_halves(self, rng):
        front = self.PRODUCTS.replace("q = Gemm<transB = 1>(x, wq)", "c = Gemm<transB = 1>(x, wq)\nq = Relu(c)")
        assert_untouched(self.model(rng, front), self.REWRITE, "what makes the two halves")

    def test_does_not_see_a_coupling_without_an_affine(self, rng):
        body = COUPLING.replace("u = Mul(z, g)", "u = Relu(z)").replace("Add(u, o)", "Relu(u)")
        assert_untouched(self.model(rng, body=body), self.REWRITE)


class TestFibersIntoImages:
    REWRITE = fibers_into_images.REWRITE
    BODY = """
        last = Transpose<perm = [0, 2, 3, 1]>(x)
        f = Reshape(last, fibers)
        p, q = Split<axis = 1>(f, sizes)
        k = Gather<axis = 1>(q, order)
        j = Mul(k, g)
        h = Gemm<transB = 1>(p, w1, b1)
        grid = Reshape(h, grid_shape)
        i = Sum(grid, row, col)
        flat = Reshape(i, hidden)
        r = Relu(flat)
        a = Gemm<transB = 1>(r, w2)
        t = Tanh(a)
        s = Mul(t, clamp)
        z = Concat<axis = 1>(j, s)
        l = ReduceSum<keepdims = 0>(t, axis)
        n = ReduceSumSquare<keepdims = 0>(z, axis)
        d = Add(l, n)
        excess = Reshape(d, map)
        y = Exp(excess)
    """
    CONSTANTS = {  # noqa: RUF012
        **{"fibers": [-1, 6], "sizes": [3, 3], "order": [2, 0, 1], "grid_shape": [-1, 4, 5, 8], "hidden": [-1, 8]},
        **{"axis": [1], "map": [-1, 4, 5], "clamp": 1.9},
    }

    def model(self, rng, body=BODY, outputs="float[2,4,5] y", **changes):
        constants = {
            **self.CONSTANTS,
            **{"g": normal(rng, 1, 3), "w1": normal(rng, 8, 3), "b1": normal(rng, 8), "w2": normal(rng, 3, 8)},
            **{"row": normal(rng, 4, 1, 8), "col": normal(rng, 1, 5, 8), **changes},
        }
        return model_of(body, "float[2,6,4,5] x", outputs, **constants)

    def test_applies(self, rng):
        operators = assert_rewritten(self.model(rng), self.REWRITE, x=normal(rng, 2, 6, 4, 5))
        assert operators.count("Conv") == 2 and not {"Transpose", "Reshape", "Gemm"} & set(operators)

    def test_leaves_the_transposed_tap_to_a_second_reader(self, rng):
        model = self.model(rng, self.BODY + "other = Relu(last)", "float[2,4,5] y, float[2,4,5,6] other")
        operators = assert_rewritten(model, self.REWRITE, x=normal(rng, 2, 6, 4, 5))
        assert operators.count("Transpose") == 1

    def test_refuses_an_operator_that_depends_on_the_layout(self, rng):
        body = self.BODY.replace("t = Tanh(a)", "t = Softmax<axis = 1>(a)")
        assert_untouched(self.model(rng, body), self.REWRITE, "(Softmax): of an unknown layout")

    def test_refuses_a_reduction_over_positions(self, rng):
        body = self.BODY.replace("d = Add(l, n)", "v = ReduceSum<keepdims = 0>(t, rows)\nd = Add(l, n)\nw = Relu(v)")
        model = self.model(rng, body, "float[2,4,5] y, float[3] w", rows=[0])
        assert_untouched(model, self.REWRITE, "over the channels alone")

    def test_refuses_a_value_inside_that_is_an_output(self, rng):
        model = self.model(rng, outputs="float[2,4,5] y, float[40,3] t")
        assert_untouched(model, self.REWRITE, "is an output")

    def test_refuses_a_computed_weight(self, rng):
        model = self.model(rng, "v = Relu(w2)\n" + self.BODY.replace("(r, w2)", "(r, v)"))
        assert_untouched(model, self.REWRITE, "plain constants")

    def test_does_not_see_another_order_of_axes(self, rng):
        body = self.BODY.replace("perm = [0, 2, 3, 1]", "perm = [0, 3, 2, 1]")
        assert_untouched(self.model(rng, body), self.REWRITE)
