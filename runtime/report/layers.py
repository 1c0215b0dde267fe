"""Which part of the network a layer is, told by the names that the engines give their layers.

An engine's layer is one node of the graph, several that were fused, or something that it put in itself. Its name says
which, in words of each engine's own:

    ONNX Runtime  encoder/maxpool/MaxPool | fused layer1/block0/subnet2/scale | ReorderInput_token_12
    OpenVINO      layer1/block0/Tanh/WithoutBiases + layer1/block0/Mul_2 | inserted Reorder normalise/Sub_abcd_acdb_...
    TensorRT      encoder/bn1/Conv + encoder/relu/Relu | PWN(PWN(score/Min), score/Exp) | layer1/block0/Tanh_myl0_7
                  {ForeignNode[layer1/block0/Split...score/map/sum]} | Reformatting CopyNode for Input Tensor 0 to ...

The exporter names every node by its place in the model, so a node's part is in how its name begins. A layer that
spans several parts counts for the one of its first node: the whole of a `ForeignNode` is where it starts.
"""

import math
import re
from collections.abc import Iterable, Sequence

from runtime.engines.sidecar import MAP_NAME, SCORE_NAME
from runtime.report.schema import LayerGroup

LayerTime = tuple[str, float]  # a layer's name, and its milliseconds per run of one frame

FRAMES, STEM, TAPS = "frames", "encoder stem", "encoder taps"
SCORE, LAYOUT, OTHER = "upsampling and score", "data layout", "other"
INSERTED = "inserted"  # how our names of an engine's own layers begin, where the engine's do not tell
STEM_MODULES = ("conv1", "bn1", "relu", "maxpool")
_PARTS = ("frames", "encoder", "decoder", "upsampling", "data", "other")  # first words, in the order of the network
_LAST = ("taps", "likelihood")  # what ends an encoder or decoder
_LAYOUT = re.compile(rf"{INSERTED} |Reorder(Input|Output)|Reformatting CopyNode|.* copy$")
# a path of one of the exporter's modules or of the passes; an engine may put a word and an underscore in front
_NODE = re.compile(r"(?<![A-Za-z0-9/])(?:resize|normalise|encoder|score|(?:layer|features)\d+)(?:/\w+)+")


def named_nodes(layer_name: str) -> list[str]:
    """Return the graph's nodes that a layer's name speaks of, in its order; none for a layer of the engine's own."""
    return [] if _LAYOUT.match(layer_name) else _NODE.findall(layer_name)


def group_of(layer_name: str, taps: Sequence[str]) -> str:
    """Return the part of the network that a layer belongs to; `taps` number the decoders, from 1.

    "frames", "encoder stem", "encoder layer1" or "encoder features6", "encoder taps" (residual additions behind one),
    "decoder 1 block 3", "decoder 1 likelihood", "upsampling and score", "data layout" (what the engine put in to
    reorder, convert or copy), "other" (names no node that is known).
    """
    if _LAYOUT.match(layer_name):
        return LAYOUT
    groups = (_group_of_node(node, taps) for node in named_nodes(layer_name))
    # an engine may call what makes an output by the output's name
    is_output = re.search(rf"\b({MAP_NAME}|{SCORE_NAME})\b", layer_name) is not None
    return next(filter(None, groups), SCORE if is_output else OTHER)


def _group_of_node(node: str, taps: Sequence[str]) -> str:
    """Return the part that a node is in, "" for one of a tap that the model does not have."""
    root, *path = node.split("/")
    if root == "encoder":
        return _encoder_part(path)
    if root in taps:
        decoder = f"decoder {taps.index(root) + 1}"
        block = re.fullmatch(r"block(\d+)", path[0])
        return f"{decoder} block {int(block[1]) + 1}" if block else f"{decoder} likelihood"
    return {"resize": FRAMES, "normalise": FRAMES, "score": SCORE}.get(root, "")


def _encoder_part(path: Sequence[str]) -> str:
    stage = "".join(path[:2]) if path[0] == "features" else path[0]
    if stage in STEM_MODULES or stage == "features0":
        return STEM
    return f"encoder {stage}" if re.fullmatch(r"(layer|features)\d+", stage) else TAPS


def group_layers(layers: Iterable[LayerTime], taps: Sequence[str]) -> tuple[LayerGroup, ...]:
    """Return the parts of the network that `layers` make up, in its order, what the engine put in last."""
    found: dict[str, list[float]] = {}
    for name, ms in layers:
        found.setdefault(group_of(name, taps), []).append(ms)
    return tuple(LayerGroup(name, math.fsum(found[name]), len(found[name])) for name in sorted(found, key=_place))


def _place(group: str) -> tuple[float, ...]:
    """Return a key that sorts groups by their place in the network."""
    word, *rest = group.split(" ")
    numbers = [float(number) for number in re.findall(r"\d+", group)]
    return (_PARTS.index(word), *numbers, *[math.inf for last in _LAST if last in rest])
