import pytest

from export.trt.inspect import LayerRow, check_engine, engine_rows, format_table
from runtime.common.errors import UserError


def inspected(kind, text, **others):
    parts = "".join(f', "{name}": {{"Type": "{text}", "Count": {count}}}' for name, count in others.items())
    return f'{{"Name": "x", "LayerType": "{kind}", "Inputs": [{{"Name": "i", "Format/Datatype": "{text}"}}]{parts}}}'


# the wordings of the inspector in 8.x and 10.x, as its users have posted them
INSPECTED = ", ".join(
    (
        inspected("CaskConvolution", "Channel major FP16 format where channel % 8 == 0"),
        inspected("CaskConvActPool", "Row major Int8 format"),
        inspected("CaskGemmConvolution", "Half", Weights=100, Bias=10),
        inspected("Reformat", "Row major linear FP32"),
        inspected("MatrixMultiply", "Row major linear FP32"),
        inspected("Myelin", "Row major linear FP32"),
        inspected("conv", "N/A due to dynamic shapes"),
        '{"Name": "c", "LayerType": "Convolution", "Inputs": []}',
        inspected("CaskGemmMatrixMultiply", "Float").replace('"x"', '"score/up0/MatMul"'),
    )
)


def test_engine_layers_are_counted_by_kind_and_type():
    rows = engine_rows(f'{{"Layers": [{INSPECTED}], "Bindings": ["frames"]}}')
    assert set(rows) == {
        LayerRow("convolution", "half", 2, 220),
        LayerRow("convolution", "int8", 1, 0),
        LayerRow("convolution", "", 2, 0),
        LayerRow("matrix multiply", "float", 1, 0),
        LayerRow("other", "float", 3, 0),  # one of them the score's product
    }
    assert engine_rows('{"Layers": ["names", "alone"], "Bindings": []}') == (LayerRow("other", "", 2, 0),)


def rows_of(**counts):
    kinds = {"conv": "convolution", "product": "matrix multiply", "other": "other"}
    return [LayerRow(kinds[key.split("_")[0]], key.partition("_")[2], count, 0) for key, count in counts.items()]


@pytest.mark.parametrize(
    ("precision", "counts"),
    [
        ("fp32", {"conv_float": 20, "product_float": 69, "other_half": 3}),
        ("fp16", {"conv_half": 20, "product_float": 2}),
        ("fp16", {"conv_": 20, "other_float": 9}),  # all in opaque nodes: nothing is told
        ("int8", {"conv_int8": 19, "conv_half": 1, "product_float": 69}),
        ("int8", {"product_int8": 48, "product_float": 21}),
    ],
)
def test_an_engine_of_the_wanted_precision(precision, counts):
    check_engine(rows_of(**counts), precision, "a.onnx")


@pytest.mark.parametrize(
    ("precision", "counts", "message"),
    [
        ("fp32", {"conv_float": 19, "conv_half": 1}, "must compute in float .all weighted.*1 convolution half"),
        ("fp16", {"conv_float": 5}, "must compute in half .most weighted.*found 5 convolution float;"),
        ("fp16", {"conv_half": 2, "product_float": 2}, "found 2 convolution half, 2 matrix multiply float"),
        ("int8", {"conv_half": 20, "product_int8": 48}, "must compute in int8"),
    ],
)
def test_an_engine_of_another_precision_is_caught(precision, counts, message):
    with pytest.raises(UserError, match=message):
        check_engine(rows_of(**counts), precision, "a.onnx")


def test_the_table_is_aligned_and_adds_up():
    rows = (LayerRow("convolution", "half", 20, 22_340_000), LayerRow("other", "float", 412, 5_000))
    lines = format_table(rows, "network").splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["layers", "of", "the", "network", "precision", "count", "weights"]
    assert lines[1].split() == ["convolution", "half", "20", "22.340", "MB"]
    assert lines[-1].split() == ["network", "432", "22.345", "MB"]
