"""What a network and its engine hold: layers by kind and precision, and the bytes of their weights.

A network is asked layer by layer. An engine is asked by its inspector, whose JSON differs between versions and hides
what a compiler fused into one opaque node: what is not told is not counted.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from export.trt.precision import (
    QUANTIZERS,
    RESIZE_PREFIX,
    SCORE,
    WANTED_TYPE,
    WEIGHTED,
    Precision,
    compute_type,
    layers_of,
    producers_of,
)
from runtime.common.errors import UserError

MEGABYTE = 10**6
OTHER = "other"
CONVOLUTION, PRODUCT = "convolution", "matrix multiply"
# which class a layer must be seen as before it shows weights of its own, and where they are
OWN_WEIGHTS = {
    "CONVOLUTION": ("IConvolutionLayer", ("kernel", "bias")),
    "FULLY_CONNECTED": ("IFullyConnectedLayer", ("kernel", "bias")),
    "CONSTANT": ("IConstantLayer", ("weights",)),
}
CARRIERS = ("SHUFFLE", "CAST", "IDENTITY", *QUANTIZERS)  # stand between a constant and the layer whose weight it is
ENGINE_TYPES = {"FP32": "float", "Float": "float", "FP16": "half", "Half": "half", "Int8": "int8"}
ENGINE_KINDS = {  # first match counts: a "CaskGemmConvolution" is a convolution
    "conv": CONVOLUTION,
    "gemm": PRODUCT,
    "matrixmultiply": PRODUCT,
    "matmul": PRODUCT,
    "fullyconnected": PRODUCT,
}
ENGINE_BYTES = {"float": 4, "half": 2, "int8": 1}


@dataclass(frozen=True)
class LayerRow:
    """The layers of one kind that compute in one precision, and the bytes of their weights."""

    kind: str  # "convolution", "matrix multiply", "resize", "score", "quantize", "dequantize", "other"
    precision: str  # "float", "half", "int8", ...; "" where an engine does not tell
    layers: int
    weight_bytes: int


def network_rows(network: Any, module: Any, strongly_typed: bool) -> tuple[LayerRow, ...]:
    """Return the rows of a parsed network, the heaviest weights first.

    A constant counts where its value is used as a weight, else as "other".
    """
    producers = producers_of(network)
    layers: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    constants: dict[str, tuple[str, str]] = {}  # by tensor: the row that a constant's bytes belong to
    for layer in layers_of(network):
        name = layer.type.name
        if name == "CONSTANT":
            constants.setdefault(layer.get_output(0).name, (OTHER, _output_type(layer)))
            continue
        key = (OTHER, _output_type(layer))
        if name in WEIGHTED:
            key = (_part(layer.name) or name.lower().replace("_", " "), compute_type(layer, producers, strongly_typed))
            constants |= dict.fromkeys(_constant_operands(layer, producers), key)
        elif name in QUANTIZERS:
            key = (name.lower(), _output_type(layer))
        layers[key] += 1
        sizes[key] += _own_bytes(layer, module)
    for layer in layers_of(network):
        if layer.type.name == "CONSTANT":
            sizes[constants[layer.get_output(0).name]] += _own_bytes(layer, module)
    return _as_rows(layers, sizes)


def engine_rows(information: str) -> tuple[LayerRow, ...]:
    """Return the rows of an engine from its inspector's JSON: kind by name, precision by the first input's type."""
    layers: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for entry in json.loads(information).get("Layers", ()):
        if not isinstance(entry, dict):  # an engine of a lesser verbosity lists names alone
            layers[OTHER, ""] += 1
            continue
        words = f"{entry.get('LayerType', '')} {entry.get('ParameterType', '')}".lower()
        kind = next((kind for word, kind in ENGINE_KINDS.items() if word in words), OTHER)
        kind = OTHER if _part(str(entry.get("Name", ""))) else kind
        inputs = entry.get("Inputs") or [{}]
        key = (kind, _engine_type(str(inputs[0].get("Format/Datatype", ""))))
        layers[key] += 1
        for part in (entry.get("Weights"), entry.get("Bias")):
            if isinstance(part, dict):
                sizes[key] += ENGINE_BYTES.get(_engine_type(str(part.get("Type", ""))), 0) * int(part.get("Count", 0))
    return _as_rows(layers, sizes)


def check_engine(rows: Iterable[LayerRow], precision: Precision, origin: str) -> None:
    """Assert that the weighted layers of an engine that tell their type are of `precision`.

    FP32: all of them. FP16: most, since a layer may read its input before the cast. INT8: most of the convolutions,
    since products may stay in floating point. Raises `UserError` with the counts.
    """
    told = [row for row in rows if row.kind != OTHER and row.precision]
    judged = told if precision != "int8" else [row for row in told if row.kind == CONVOLUTION] or told
    total = sum(row.layers for row in judged)
    matching = sum(row.layers for row in judged if row.precision == WANTED_TYPE[precision])
    if matching < total and (precision == "fp32" or 2 * matching <= total):
        share = "all" if precision == "fp32" else "most"
        raise UserError(
            f"the engine of {origin} must compute in {WANTED_TYPE[precision]} ({share} weighted layers)",
            ", ".join(f"{row.layers} {row.kind} {row.precision}" for row in told),
            "this GPU may lack that precision: build another one",
        )


def format_table(rows: Iterable[LayerRow], title: str) -> str:
    """Return rows as aligned text, one line each and one for their sum."""
    rows = tuple(rows)
    total = LayerRow(title, "", sum(row.layers for row in rows), sum(row.weight_bytes for row in rows))
    lines = [f"{'layers of the ' + title:<26}{'precision':<10}{'count':>6}{'weights':>12}"]
    lines += [
        f"{row.kind:<26}{row.precision:<10}{row.layers:>6}{row.weight_bytes / MEGABYTE:>9.3f} MB"
        for row in (*rows, total)
    ]
    return "\n".join(lines)


def _as_rows(layers: Counter[tuple[str, str]], sizes: Counter[tuple[str, str]]) -> tuple[LayerRow, ...]:
    rows = [LayerRow(*key, layers[key], sizes[key]) for key in layers | sizes]
    return tuple(sorted(rows, key=lambda row: (row.kind == OTHER, -row.weight_bytes, row.kind, row.precision)))


def _part(name: str) -> str:
    """Return "resize" or "score" for a layer before or behind the model, which is FP32 in every precision, else ""."""
    return next((prefix.rstrip("/") for prefix in (RESIZE_PREFIX, SCORE) if name.startswith(prefix)), "")


def _output_type(layer: Any) -> str:
    output = layer.get_output(0)  # the end of a loop may have none
    return "" if output is None else str(output.dtype.name).lower()


def _engine_type(text: str) -> str:
    return next((name for word, name in ENGINE_TYPES.items() if word.lower() in text.lower()), "")


def _own_bytes(layer: Any, module: Any) -> int:
    """Return the bytes of the weights that a layer itself holds."""
    if layer.type.name not in OWN_WEIGHTS:
        return 0
    class_name, parts = OWN_WEIGHTS[layer.type.name]
    layer.__class__ = getattr(module, class_name)  # the binding hands out every layer as an ILayer
    return sum(int(getattr(layer, part).nbytes) for part in parts)


def _constant_operands(layer: Any, producers: dict[str, Any]) -> list[str]:
    """Return the tensors of the constants that a weighted layer reads, also behind casts, shuffles and Q/DQ."""
    found = []
    for index in range(layer.num_inputs):
        tensor = layer.get_input(index)
        source = None if tensor is None else producers.get(tensor.name)
        while source is not None and source.type.name in CARRIERS:
            source = producers.get(source.get_input(0).name)
        if source is not None and source.type.name == "CONSTANT":
            found.append(str(source.get_output(0).name))
    return found
