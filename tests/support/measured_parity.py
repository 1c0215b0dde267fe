"""How far a typed graph's answers lie from the FP32 graph's, each judged whole and for itself."""

import onnx

from export.images.parity_images import Images
from export.precisions.answers import answers_of
from export.precisions.parity import Parity, compare_answers


def measure_parity(reference: onnx.ModelProto, typed: onnx.ModelProto, images: Images, threshold: float) -> Parity:
    """Judge `images` with both graphs and return the differences."""
    return compare_answers(answers_of(reference, images), answers_of(typed, images), images, threshold)
