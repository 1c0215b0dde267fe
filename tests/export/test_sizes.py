"""The typed graphs against the sizes of the paper's Table 6; a plan's weights are its graph's."""

import pytest

from export.graph.weighted_layers import WEIGHTED
from export.precisions.typing import to_fp16, to_int8
from runtime.report.paper_table import cflow_row
from tests.support.export_fixtures import exported, three_taps
from tests.support.onnx_inspection import nodes_of

ENCODERS = ["resnet18", pytest.param("mobilenet_v3_large", marks=pytest.mark.slow)]
LARGEST = {"fp16": 1 / 2, "int8": 1 / 3}  # of the paper's file


@pytest.mark.parametrize("precision", LARGEST)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_typed_graph_is_a_fraction_of_the_papers_file(encoder, precision):
    fused = exported(three_taps(encoder)).fused  # weights know nothing of the size of images
    ranges = dict.fromkeys((node.input[0] for node in nodes_of(fused, *WEIGHTED)), (-4.0, 4.0))
    typed = to_fp16(fused) if precision == "fp16" else to_int8(fused, ranges)
    paper_mb = cflow_row(encoder, (256, 256)).size_mb
    assert len(typed.SerializeToString()) / 1e6 <= LARGEST[precision] * paper_mb
