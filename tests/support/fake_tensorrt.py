"""TensorRT releases rebuilt from their recorded API: every name that a release has, and no other.

A class has the recorded attributes, reading or setting any other one raises AttributeError as the binding does. What
they do is the least that a build needs: the parser turns an ONNX into layers one by one, the configuration keeps what
it is told, the builder returns bytes. `Library.told` is what it was told.
"""

import enum
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
from onnx import numpy_helper

from export.trt.precision import onnx_tensor_types

LEAN = "tensorrt_lean 11.4.0.106"  # opens plans, and builds none
EVERY = json.loads(Path(__file__).with_name("recorded_tensorrt_apis.json").read_text())
RECORDED = {version: record for version, record in EVERY.items() if version != LEAN}
V8, V10_3, V10_13, V11_0, V11_4, RTX_1_4, RTX = RECORDED
TENSORRT = (V8, V10_3, V10_13, V11_0, V11_4)
FLAGS_FOR_TYPES = (V8, V10_3, V10_13)  # where BuilderFlag.FP16 does something
PLAN = b"plan"
KINDS = {
    "Conv": "CONVOLUTION",
    "Gemm": "MATRIX_MULTIPLY",
    "Cast": "CAST",
    "QuantizeLinear": "QUANTIZE",
    "DequantizeLinear": "DEQUANTIZE",
    "Tanh": "ACTIVATION",
    "Mul": "ELEMENTWISE",
    "Transpose": "SHUFFLE",
    "Reshape": "SHUFFLE",
    "ReduceSumSquare": "REDUCE",
    "ReduceMax": "REDUCE",
}
DATA_TYPES = {"float": "FLOAT", "float16": "HALF", "int8": "INT8", "uint8": "UINT8", "int64": "INT64"}
HIDDEN_WHERE_WEAK = ("HALF",)  # a network without strong typing calls every floating-point tensor FLOAT


class Recorded:
    """An object that takes only the attributes that were recorded of its class."""

    _recorded = frozenset()

    def __setattr__(self, name, value):
        bound = "_recorded" in type(self).__dict__  # a subclass written in Python has a dictionary of its own
        if bound and name not in self._recorded and not name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        object.__setattr__(self, name, value)


def make_tensor(module, name, dtype, shape=()):
    tensor = module.ITensor()
    tensor.name, tensor.dtype, tensor.shape = name, dtype, shape
    return tensor


def make_layer(module, kind, name, inputs, output, weights=()):
    layer = module.ILayer()
    layer.name, layer.type = name, module.LayerType[kind]
    layer.num_inputs, layer.num_outputs = len(inputs), 1
    layer._inputs, layer._output, layer._weights = inputs, output, weights
    return layer


def _parse(parser, data):
    """Turn each node of an ONNX into one layer, each initialiser into a constant or a convolution's own weights."""
    module, network = parser._library, parser._network
    model = onnx.load_from_string(data)
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    tensors = {}
    for name, kind in onnx_tensor_types(model).items():
        kind = DATA_TYPES.get(kind, "FLOAT")
        kind = "FLOAT" if kind in HIDDEN_WHERE_WEAK and not network._strongly_typed else kind
        kind = kind if kind in module.DataType.__members__ else "INT32"  # 8.6 narrows shapes
        tensors[name] = make_tensor(module, name, module.DataType[kind])
    frames = model.graph.input[0]
    shape = tuple(side.dim_value or -1 for side in frames.type.tensor_type.shape.dim)
    network._inputs = [make_tensor(module, frames.name, module.DataType.UINT8, shape)]
    for node in model.graph.node:
        own = [name for name in node.input[1:] if node.op_type == "Conv" and name in values]
        for name in node.input:
            if name in values and name not in own:
                weights = SimpleNamespace(nbytes=values[name].nbytes)
                network._layers.append(make_layer(module, "CONSTANT", name, [], tensors[name], (weights,)))
        network._layers.append(
            make_layer(
                module,
                KINDS[node.op_type],
                node.name,
                [tensors[name] for name in node.input if name not in own],
                tensors[node.output[0]],
                tuple(SimpleNamespace(nbytes=values[name].nbytes) for name in own),
            )
        )
    return True


def network_of(library, *rows):
    """A network without strong typing: rows of (layer name, kind, input names, output name), every tensor FLOAT."""
    network = library.INetworkDefinition()
    tensors = {}

    def tensor(name):
        return tensors.setdefault(name, make_tensor(library, name, library.DataType.FLOAT))

    network._layers = [
        make_layer(library, kind, name, [tensor(i) for i in inputs], tensor(output))
        for name, kind, inputs, output in rows
    ]
    return network


def _own(index):
    """A convolution's kernel or bias: of no bytes where it comes as an input instead."""
    none = SimpleNamespace(nbytes=0)
    return property(lambda layer: (*layer._weights, none, none)[index])


def _make_network(builder, flags=0):
    library = builder._library
    creation = library.NetworkDefinitionCreationFlag
    network = library.INetworkDefinition()
    network._layers = []
    # from 11 on there is no other way, whatever the flags say
    library.told.network_flags = [name for name, bit in creation.__members__.items() if flags & 1 << bit]
    asked = "STRONGLY_TYPED" in library.told.network_flags
    network._strongly_typed = asked or "FP16" not in library.BuilderFlag.__members__
    return network


def _make_config(builder):
    library = builder._library
    config = library.IBuilderConfig()
    config._library = library
    library.told.config = config
    library.told.flags = {"TF32"}
    return config


def _set_tactic_sources(config, bits):
    library = config._library
    library.told.tactics = {source.name for source in library.TacticSource if bits & 1 << source}
    return True


def _build(builder, network, config):
    builder._library.told.network = network
    return PLAN if builder._library.builds else None


BEHAVIOUR = {
    "Builder": {
        "__init__": lambda self, log: None,
        "create_network": _make_network,
        "create_builder_config": _make_config,
        "create_optimization_profile": lambda self: self._library.IOptimizationProfile(),
        "build_serialized_network": _build,
        "num_DLA_cores": 2,
    },
    "IBuilderConfig": {
        "set_flag": lambda self, flag: self._library.told.flags.add(flag.name),
        "clear_flag": lambda self, flag: self._library.told.flags.discard(flag.name),
        "set_memory_pool_limit": lambda self, pool, size: self._library.told.pools.update({pool.name: size}),
        "add_optimization_profile": lambda self, profile: self._library.told.profiles.append(profile._shapes),
        "set_compute_capability": lambda self, member, index: self._library.told.targets.append((index, member.name)),
        "can_run_on_DLA": lambda self, layer: layer.type.name in ("CONVOLUTION", "ACTIVATION"),
        "get_tactic_sources": lambda self: (1 << len(self._library.TacticSource)) - 1,
        "set_tactic_sources": _set_tactic_sources,
        "set_device_type": lambda self, layer, kind: self._library.told.devices.update({layer.name: kind.name}),
        "create_timing_cache": lambda self, data: self._library.ITimingCache(),
        "set_timing_cache": lambda self, cache, ignore_mismatch: True,
        "get_timing_cache": lambda self: self._library.ITimingCache(),
    },
    "ITimingCache": {"serialize": lambda self: b"timings"},
    "IOptimizationProfile": {"set_shape": lambda self, name, *shapes: setattr(self, "_shapes", {name: shapes})},
    "INetworkDefinition": {
        "num_layers": property(lambda self: len(self._layers)),
        "get_layer": lambda self, index: self._layers[index],
        "num_inputs": property(lambda self: len(self._inputs)),
        "get_input": lambda self, index: self._inputs[index],
    },
    "ILayer": {
        "get_input": lambda self, index: self._inputs[index],
        "get_output": lambda self, index: self._output,
        "precision": property(
            lambda self: getattr(self, "_precision", None), lambda self, dtype: setattr(self, "_precision", dtype)
        ),
        "precision_is_set": property(lambda self: hasattr(self, "_precision")),
        "set_output_type": lambda self, index, dtype: setattr(self, "_output_type", dtype),
    },
    "IConvolutionLayer": {"kernel": _own(0), "bias": _own(1)},
    "IConstantLayer": {"weights": property(lambda self: self._weights[0])},
    "OnnxParser": {
        "__init__": lambda self, network, log: setattr(self, "_network", network),
        "parse": lambda self, data, path=None: _parse(self, data),
        "parse_from_file": lambda self, path: _parse(self, Path(path).read_bytes()),
        "num_errors": 0,
    },
}


def recorded_library(version):
    """Return a module with the recorded surface of `version` ("tensorrt 10.3.0"); without `builds` its builds fail."""
    name, text = version.split()
    record = EVERY[version]
    library = ModuleType(name)
    library.__version__ = text
    library.builds = True
    library.told = SimpleNamespace(pools={}, profiles=[], targets=[], devices={})
    for enum_name, members in record["enums"].items():
        setattr(library, enum_name, enum.IntEnum(enum_name, members, start=0))
    for class_name, names in record["classes"].items():
        base = (
            library.ILayer
            if class_name in ("IConvolutionLayer", "IFullyConnectedLayer", "IConstantLayer")
            else Recorded
        )
        does = {key: value for key, value in BEHAVIOUR.get(class_name, {}).items() if key in names or key == "__init__"}
        body = dict.fromkeys(names) | does | {"_recorded": frozenset(names) | base._recorded, "_library": library}
        setattr(library, class_name, type(class_name, (base,), body))
    return library
