"""Each rewrite on graphs of a few nodes: where it applies, where it must not, and what it leaves to other readers."""

import numpy as np
import pytest
from onnx import numpy_helper

from export.passes import (
    affine_into_permutation,
    condition_to_bias,
    drop_last_permutation,
    merge_log_determinants,
    permutation_into_gather,
    rewrites,
    scale_into_subnet,
    unread_initializers,
)
from export.passes.rewrite import ModelFacts
from tests.support.graph_text import assert_rewritten, assert_untouched, model_of, normal, rewritten


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def rotation(rng, size):
    return np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)


class TestConditionToBias:
    REWRITE = condition_to_bias.REWRITE
    BODY = """
        grid = Expand(code, batch)
        c = Reshape(grid, flat)
        xc = Concat<axis = 1>(x, c)
        h = Gemm<transB = 1>(xc, w, b)
    """

    def constants(self, rng, code=None):
        if code is None:
            code = np.concatenate(
                [normal(rng, 1, 3, 2) + np.zeros((2, 3, 2)), normal(rng, 2, 1, 2) + np.zeros((2, 3, 2))], 2
            )
        return {"code": code[None], "batch": [2, 1, 1, 1], "flat": [-1, 4], "w": normal(rng, 6, 7), "b": normal(rng, 6)}

    def model(self, rng, body=BODY, outputs="float[12,6] h", code=None, **changes):
        return model_of(body, "float[12,3] x", outputs, **{**self.constants(rng, code), **changes})

    def test_applies(self, rng):
        operators = assert_rewritten(self.model(rng), self.REWRITE, x=normal(rng, 12, 3))
        assert operators == ["Gemm", "Reshape", "Sum", "Reshape"]

    def test_tables_are_small(self, rng):
        result, _ = rewritten(self.model(rng), self.REWRITE)
        shapes = {tensor.name.split("/")[-1]: list(tensor.dims) for tensor in result.graph.initializer}
        assert shapes["row_bias"] == [2, 1, 6] and shapes["col_bias"] == [1, 3, 6] and shapes["weight"] == [6, 3]

    def test_leaves_the_concatenation_to_a_second_reader(self, rng):
        model = self.model(rng, self.BODY + "y = Relu(xc)", "float[12,6] h, float[12,7] y")
        operators = assert_rewritten(model, self.REWRITE, x=normal(rng, 12, 3))
        assert "Concat" in operators and "Relu" in operators

    def test_refuses_a_code_that_is_no_sum(self, rng):
        code = normal(rng, 2, 3, 4)
        assert_untouched(self.model(rng, code=code), self.REWRITE, "row plus a function of the column")

    def test_refuses_a_scaled_product(self, rng):
        body = self.BODY.replace("transB = 1", "transB = 1, alpha = 2.0")
        assert_untouched(self.model(rng, body), self.REWRITE, "plain constants")

    def test_does_not_see_a_condition_in_front(self, rng):
        body = self.BODY.replace("Concat<axis = 1>(x, c)", "Concat<axis = 1>(c, x)")
        assert_untouched(self.model(rng, body), self.REWRITE)


class TestDropLastPermutation:
    REWRITE = drop_last_permutation.REWRITE
    BODY = """
        u = Gemm<transB = 1>(x, w)
        square = Mul(u, u)
        norm = ReduceSum<keepdims = 0>(square, axis)
    """

    def model(self, rng, body=BODY, outputs="float[5] norm", **constants):
        constants = {"w": rotation(rng, 8), "axis": [1], **constants}
        return model_of(body, "float[5,8] x", outputs, **constants)

    def test_applies(self, rng):
        assert assert_rewritten(self.model(rng), self.REWRITE, x=normal(rng, 5, 8)) == ["Mul", "ReduceSum"]

    def test_refuses_a_matrix_that_changes_lengths(self, rng):
        w = rotation(rng, 8)
        w[0] *= 1.001
        assert_untouched(self.model(rng, w=w), self.REWRITE, "not orthogonal")

    def test_refuses_a_bias(self, rng):
        model = self.model(rng, self.BODY.replace("(x, w)", "(x, w, b)"), b=normal(rng, 8))
        assert_untouched(model, self.REWRITE, "without a bias")

    def test_refuses_where_the_vector_is_read_elsewhere(self, rng):
        model = self.model(rng, self.BODY, "float[5] norm, float[5,8] u")
        assert_untouched(model, self.REWRITE, "read elsewhere")

    def test_refuses_where_the_squares_are_read_elsewhere(self, rng):
        model = self.model(rng, self.BODY + "y = Relu(square)", "float[5] norm, float[5,8] y")
        assert_untouched(model, self.REWRITE, "not only summed")

    def test_refuses_where_the_squares_are_an_output(self, rng):
        assert_untouched(
            self.model(rng, self.BODY, "float[5] norm, float[5,8] square"), self.REWRITE, "not only summed"
        )

    def test_refuses_a_sum_over_positions(self, rng):
        model = self.model(rng, self.BODY, "float[8] norm", axis=[0])
        assert_untouched(model, self.REWRITE, "not summed over the channels alone")


class TestPermutationIntoGather:
    REWRITE = permutation_into_gather.REWRITE

    def model(self, w, body="y = Gemm<transB = 1>(x, w)", outputs="float[5,8] y", **constants):
        return model_of(body, "float[5,8] x", outputs, w=w, **constants)

    def test_applies(self, rng):
        model = self.model(np.eye(8)[rng.permutation(8)])
        assert assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 8)) == ["Gather"]

    def test_applies_to_a_weight_that_is_not_transposed(self, rng):
        model = self.model(np.eye(8)[rng.permutation(8)], "y = Gemm(x, w)")
        assert assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 8)) == ["Gather"]

    def test_keeps_every_reader(self, rng):
        body = "y = Gemm<transB = 1>(x, w)\nz = Relu(y)"
        model = self.model(np.eye(8)[rng.permutation(8)], body, "float[5,8] y, float[5,8] z")
        assert assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 8)) == ["Gather", "Relu"]

    def test_refuses_two_ones_in_a_column(self, rng):
        w = np.eye(8)
        w[1] = w[0]
        assert_untouched(self.model(w), self.REWRITE, "no permutation")

    def test_refuses_a_bias(self, rng):
        model = self.model(np.eye(8), "y = Gemm<transB = 1>(x, w, b)", b=normal(rng, 8))
        assert_untouched(model, self.REWRITE, "bias")

    def test_does_not_see_a_soft_permutation(self, rng):
        assert_untouched(self.model(rotation(rng, 8)), self.REWRITE)


class TestAffineIntoPermutation:
    REWRITE = affine_into_permutation.REWRITE
    BODY = """
        scaled = Mul(x, g)
        shifted = Add(scaled, o)
        y = Gemm<transB = 1>(shifted, w)
    """

    def model(self, rng, body=BODY, outputs="float[5,8] y", **changes):
        constants = {"g": normal(rng, 1, 8), "o": normal(rng, 1, 8), "w": rotation(rng, 8), **changes}
        return model_of(body, "float[5,8] x", outputs, **constants)

    def test_applies(self, rng):
        assert assert_rewritten(self.model(rng), self.REWRITE, x=normal(rng, 5, 8)) == ["Gemm"]

    def test_applies_to_swapped_operands_and_scalars(self, rng):
        body = self.BODY.replace("(x, g)", "(g, x)").replace("(scaled, o)", "(o, scaled)")
        assert assert_rewritten(self.model(rng, body, g=1.5, o=0.25), self.REWRITE, x=normal(rng, 5, 8)) == ["Gemm"]

    def test_refuses_an_offset_by_position(self, rng):
        assert_untouched(self.model(rng, o=normal(rng, 5, 1)), self.REWRITE, "for each of 8 channels")

    def test_refuses_an_offset_as_long_as_the_channels_but_by_position(self, rng):
        model = model_of(
            self.BODY, "float[8,8] x", "float[8,8] y", g=normal(rng, 8), o=normal(rng, 8, 1), w=rotation(rng, 8)
        )
        assert_untouched(model, self.REWRITE, "for each of 8 channels")

    def test_refuses_where_the_affine_is_read_elsewhere(self, rng):
        model = self.model(rng, self.BODY, "float[5,8] y, float[5,8] shifted")
        assert_untouched(model, self.REWRITE, "read elsewhere")

    def test_leaves_the_scaled_vector_to_a_second_reader(self, rng):
        model = self.model(rng, self.BODY, "float[5,8] y, float[5,8] scaled")
        assert assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 8)) == ["Mul", "Gemm"]

    def test_does_not_see_a_computed_offset(self, rng):
        assert_untouched(self.model(rng, self.BODY.replace("(scaled, o)", "(scaled, x)")), self.REWRITE)


class TestScaleIntoSubnet:
    REWRITE = scale_into_subnet.REWRITE
    BODY = """
        y = Gemm<transB = 1>(x, w, b)
        a = Mul(y, tenth)
    """

    def model(self, rng, body=BODY, outputs="float[5,4] a", **changes):
        constants = {"w": normal(rng, 4, 8), "b": normal(rng, 4), "tenth": 0.1, **changes}
        return model_of(body, "float[5,8] x", outputs, **constants)

    def test_applies(self, rng):
        assert assert_rewritten(self.model(rng), self.REWRITE, x=normal(rng, 5, 8)) == ["Gemm"]

    def test_keeps_every_reader_of_the_scaled_product(self, rng):
        model = self.model(rng, self.BODY + "t = Tanh(a)", "float[5,4] a, float[5,4] t")
        assert assert_rewritten(model, self.REWRITE, x=normal(rng, 5, 8)) == ["Gemm", "Tanh"]

    def test_refuses_where_the_unscaled_product_is_read_elsewhere(self, rng):
        assert_untouched(self.model(rng, self.BODY, "float[5,4] a, float[5,4] y"), self.REWRITE, "read elsewhere")

    def test_refuses_a_computed_weight(self, rng):
        model = self.model(rng, "v = Relu(w)\n" + self.BODY.replace("(x, w, b)", "(x, v, b)"))
        assert_untouched(model, self.REWRITE, "plain constants")

    def test_does_not_see_a_factor_per_channel(self, rng):
        assert_untouched(self.model(rng, tenth=normal(rng, 4)), self.REWRITE)


class TestMergeLogDeterminants:
    REWRITE = merge_log_determinants.REWRITE
    BODY = """
        d1 = ReduceSum<keepdims = 0>(s1, axis)
        d2 = ReduceSum<keepdims = 0>(s2, axis)
        e1 = Add(d1, log_g1)
        e2 = Add(d2, log_g2)
        total = Add(e1, e2)
        square = Mul(u, u)
        norm = ReduceSum<keepdims = 0>(square, axis)
        half = Mul(norm, one_half)
        left = Sub(total, half)
        unnormed = Sub(left, log_pi)
        logp = Div(unnormed, dims)
        grid = Reshape(logp, shape)
        excess = Sub(grid, maximum)
        limited = Min(excess, zero)
    """
    INPUTS = "float[6,4] s1, float[6,4] s2, float[6,8] u"
    CONSTANTS = {  # noqa: RUF012
        "axis": [1],
        "log_g1": 0.3,
        "log_g2": -0.2,
        "one_half": 0.5,
        "log_pi": 7.35,
        "dims": 8.0,
        "shape": [-1, 2, 3],
        "maximum": -1.4,
        "zero": 0.0,
    }

    def model(self, body=BODY, outputs="float[1,2,3] limited", **changes):
        return model_of(body, self.INPUTS, outputs, **{**self.CONSTANTS, **changes})

    def feeds(self, rng):
        return {"s1": normal(rng, 6, 4), "s2": normal(rng, 6, 4), "u": normal(rng, 6, 8)}

    def test_applies(self, rng):
        operators = assert_rewritten(self.model(), self.REWRITE, **self.feeds(rng))
        assert sorted(operators) == sorted(
            ["Sum", "ReduceSum", "Mul", "ReduceSumSquare", "Mul", "Add", "Add", "Reshape", "Min"]
        )

    def test_constants_become_one_scalar(self):
        result, _ = rewritten(self.model(), self.REWRITE)
        offset = next(tensor for tensor in result.graph.initializer if tensor.name.endswith("/offset"))
        assert numpy_helper.to_array(offset).item() == pytest.approx((0.3 - 0.2 - 7.35) / 8 + 1.4, rel=1e-6)

    def test_keeps_a_sum_that_is_read_elsewhere(self, rng):
        model = self.model(self.BODY + "y = Exp(d1)", "float[1,2,3] limited, float[6] y, float[6] norm")
        operators = assert_rewritten(model, self.REWRITE, **self.feeds(rng))
        assert operators.count("ReduceSum") == 3

    def test_applies_to_one_block(self, rng):
        body = self.BODY.replace("Add(e1, e2)", "Identity(e1)").replace(
            "total = Identity(e1)", "total = Add(e1, log_g2)"
        )
        assert_rewritten(self.model(body), self.REWRITE, **self.feeds(rng))

    def test_refuses_different_factors(self):
        body = self.BODY.replace("e2 = Add(d2, log_g2)", "e2 = Mul(d2, log_g2)")
        assert_untouched(self.model(body), self.REWRITE, "different factors")

    def test_refuses_what_is_not_affine(self):
        body = self.BODY.replace("e2 = Add(d2, log_g2)", "e2 = Exp(d2)")
        assert_untouched(self.model(body), self.REWRITE, "not affine")

    def test_does_not_see_a_quotient_by_a_sum(self):
        body = self.BODY.replace("Div(unnormed, dims)", "Div(dims, unnormed)")
        assert_untouched(self.model(body), self.REWRITE)

    def test_refuses_another_axis(self):
        body = self.BODY.replace("d1 = ReduceSum<keepdims = 0>(s1, axis)", "d1 = ReduceSum<keepdims = 0>(s1, rows)")
        inputs = "float[6,6] s1, float[6,4] s2, float[6,8] u"
        model = model_of(body, inputs, "float[1,2,3] limited", **self.CONSTANTS, rows=[0])
        assert_untouched(model, self.REWRITE, "over the channels alone")

    def test_does_not_see_another_limit_than_zero(self):
        assert_untouched(self.model(zero=1.0), self.REWRITE)


class TestUnreadInitializers:
    def test_removes_what_nothing_reads(self, rng):
        model = model_of(
            "y = Relu(x)", "float[2] x", "float[2] y, float[2] kept", kept=normal(rng, 2), w_perm_inv=normal(rng, 9)
        )
        assert unread_initializers.run(model).matches == 1
        assert [tensor.name for tensor in model.graph.initializer] == ["kept"]
        assert unread_initializers.run(model).matches == 0

    def test_leaves_a_model_that_reads_all(self, rng):
        model = model_of("y = Add(x, w)", "float[2] x", "float[2] y", w=normal(rng, 2))
        assert unread_initializers.run(model).matches == 0
        assert len(model.graph.initializer) == 1


def test_expected_counts_follow_the_structure():
    soft, hard = ModelFacts(3, 24, 3, True, True, 2), ModelFacts(2, 8, 2, False, False, 1)
    factored = ModelFacts(3, 30, 6, True, True, 2)
    assert [rewrite.expected(soft) for rewrite in rewrites()] == [1, 24, 0, 3, 0, 21, 24, 3, 45, 3, 0, 2, 3]
    assert [rewrite.expected(hard) for rewrite in rewrites()] == [1, 0, 0, 2, 6, 0, 8, 2, 14, 8, 0, 1, 2]
    assert [rewrite.expected(factored) for rewrite in rewrites()] == [1, 30, 3, 3, 0, 24, 30, 3, 54, 6, 3, 2, 3]


def test_the_gemm_layout_stops_before_the_images():
    assert rewrites("gemm") == rewrites()[:-1]
