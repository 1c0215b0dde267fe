"""ImageNet encoders cut at their last tap; what is past it is neither built, stored nor computed.

The parts are in `export.model.encoders`; this is their door.
"""

from export.model.encoders.random_weights import calibrate_batch_norm
from export.model.encoders.spec import IMAGENET_MEAN, IMAGENET_STD, REFLECT, EncoderSpec, Tap, WeightsPackage
from export.model.encoders.table import ENCODERS, build_encoder, check_size, check_taps
from export.model.encoders.weights import load_encoder_state, load_encoder_weights

__all__ = [
    "ENCODERS",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "REFLECT",
    "EncoderSpec",
    "Tap",
    "WeightsPackage",
    "build_encoder",
    "calibrate_batch_norm",
    "check_size",
    "check_taps",
    "load_encoder_state",
    "load_encoder_weights",
]
