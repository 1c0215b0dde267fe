"""The whole build on every recorded release: what each is told, and that nothing is touched that it does not have."""

import json

import onnx
import pytest

from export.trt import build as tensorrt_build
from export.trt import compat as tensorrt_compat
from export.trt.build import build_plan
from export.trt.compat import Backend
from export.trt.inspect import LayerRow
from export.trt.options import BuildOptions
from runtime.common.errors import UserError
from runtime.common.files import sha256_of
from tests.support.fake_tensorrt import (
    FLAGS_FOR_TYPES,
    PLAN,
    RECORDED,
    RTX,
    TENSORRT,
    V8,
    V10_3,
    V11_4,
    recorded_library,
)
from tests.support.small_graphs import SIZE, small_model

PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    monkeypatch.setattr(tensorrt_compat, "compute_capability", lambda: "8.6")
    monkeypatch.setattr(tensorrt_compat, "device_problem", lambda: None)
    monkeypatch.setattr(tensorrt_build, "device_problem", lambda: "not asked to open the plan")


@pytest.fixture
def build(tmp_path):
    """Return a function that builds the small model on a release, and gives (plan, what it was told)."""

    def run(version, precision="fp32", rename=None, **options):
        model = small_model(precision)
        for node in model.graph.node:
            node.name = (rename or {}).get(node.name, node.name)
        path = tmp_path / "small.onnx"
        onnx.save(model, path)
        library = recorded_library(version)
        backend = Backend(*version.split()[:1], library, library.__version__)
        return build_plan(path, BuildOptions(precision, **options), backend), library.told

    return run


def layers(told):
    return {layer.name: layer for layer in told.network._layers}


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_release_builds_every_precision(version, precision, build):
    plan, told = build(version, precision, max_batch=4, workspace_mib=64, optimization_level=2)
    word = {"fp32": "float", "fp16": "half", "int8": "int8"}[precision]
    counts = {f"convolution {word}": 1, f"matrix_multiply {word}": 1}
    assert plan.layers == counts | ({"quantize": 2, "dequantize": 4} if precision == "int8" else {})
    assert plan.data == PLAN
    assert (plan.artefact.library, plan.artefact.version) == tuple(version.split())
    assert told.network_flags == (["EXPLICIT_BATCH"] if version == V8 else ["STRONGLY_TYPED"])
    by_flags = {"fp32": set(), "fp16": {"FP16"}, "int8": {"INT8"}}[precision] if version == V8 else set()
    rtx = {"REQUIRE_USER_ALLOCATION"} if version not in TENSORRT else set()
    assert told.flags == by_flags | ({"OBEY_PRECISION_CONSTRAINTS"} if by_flags else set()) | rtx  # and no TF32
    assert told.pools == {"WORKSPACE": 64 << 20}
    assert told.profiles == [{"frames": ((1, *SIZE, 3), (4, *SIZE, 3), (4, *SIZE, 3))}]
    assert told.config.builder_optimization_level == 2
    assert told.config.profiling_verbosity.name == "DETAILED"
    assert told.targets == ([] if version in TENSORRT else [(0, "SM86"), (1, "SM89"), (2, "SM120")])


def test_only_8_6_is_told_the_precision_layer_by_layer(build):
    for version in RECORDED:
        _, told = build(version, "fp16")
        if version == V8:
            named = layers(told)
            assert named["features_half_node"].precision.name == "HALF"
            assert named["clamped_node"].precision.name == named["clamped_node"]._output_type.name == "FLOAT"
        else:
            assert not any(hasattr(layer, "_precision") for layer in told.network._layers)


@pytest.mark.parametrize("version", RECORDED)
def test_auxiliary_streams_are_one_fewer_than_the_decoders(version, build):
    blocks = {"features_node": "layer2/block0/a", "fibers_node": "layer3/block0/b", "mixed_node": "layer4/block7/c"}
    assert build(version, rename=blocks)[1].config.max_aux_streams == 2
    assert build(version, rename={"mixed_node": "layer4/block7/c"})[1].config.max_aux_streams == 0
    assert build(version)[1].config.max_aux_streams is None  # no decoder by name: the library's own choice stays
    for asked in (0, 5):
        assert build(version, rename=blocks, aux_streams=asked)[1].config.max_aux_streams == asked


@pytest.mark.parametrize("version", TENSORRT)
def test_compatible_plans_are_asked_for_and_recorded(version, build):
    plan, told = build(version, version_compatible=True, hardware_compatible=True)
    assert "VERSION_COMPATIBLE" in told.flags
    assert told.config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert (plan.artefact.version_compatible, plan.artefact.hardware_compatible) == (True, True)
    plan, told = build(version)
    assert "VERSION_COMPATIBLE" not in told.flags
    assert told.config.hardware_compatibility_level is None
    assert (plan.artefact.version_compatible, plan.artefact.hardware_compatible) == (False, False)


@pytest.mark.parametrize("version", [version for version in RECORDED if version != V8])
def test_a_stripped_plan_names_the_onnx_that_its_weights_are_in(version, build, tmp_path):
    plan, told = build(version, "fp16", strip_weights=True)
    assert {"STRIP_PLAN", "REFIT_IDENTICAL"} <= told.flags
    assert plan.artefact.weights_sha256 == sha256_of(tmp_path / "small.onnx")
    assert build(version, refittable=True)[0].artefact.weights_sha256 == ""


@pytest.mark.parametrize("version", TENSORRT)
def test_a_dla_gets_the_encoder_layers_that_it_takes_and_a_fixed_batch(version, build):
    encoder = {"features_half_node": "encoder/conv", "image_node": "encoder/transpose"}
    plan, told = build(version, "fp16", rename=encoder, dla_core=1, max_batch=4)
    assert told.devices == {"encoder/conv": "DLA"}  # not what it cannot, nor what is no encoder
    assert (plan.on_dla, plan.artefact.dla_core, told.config.DLA_core) == (1, 1, 1)
    assert "layers of the encoder on the DLA: 1" in plan.table()
    assert told.network.get_input(0).shape == (4, *SIZE, 3)
    assert told.profiles == []
    assert "GPU_FALLBACK" in told.flags
    assert ("FP16" in told.flags) == (version in FLAGS_FOR_TYPES)
    assert plan.layers == {"convolution half": 1, "matrix_multiply half": 1}
    with pytest.raises(UserError, match="must take a part of the encoder; found none of its 0 layers"):
        build(version, "fp16", dla_core=0)
    with pytest.raises(UserError, match="found 2 DLA cores"):
        build(version, "fp16", rename=encoder, dla_core=2)


@pytest.mark.parametrize("version", TENSORRT)
def test_a_timing_cache_is_written_by_libraries_that_time_kernels(version, build, tmp_path):
    build(version, timing_cache=tmp_path / "timing.cache")
    assert (tmp_path / "timing.cache").read_bytes() == b"timings"


@pytest.mark.parametrize("version", RECORDED)
def test_weights_are_counted_where_they_are_used(version, build):
    plan, _ = build(version, "fp16")
    # Conv 16x3x3x3 and 16, Gemm 16x16 and 16, two bytes each
    assert LayerRow("convolution", "half", 1, 2 * (16 * 27 + 16)) in plan.network
    assert LayerRow("matrix multiply", "half", 1, 2 * (256 + 16)) in plan.network
    plan, _ = build(version, "int8")
    # one byte a weight; biases stay FP32, scales are no weights
    assert LayerRow("convolution", "int8", 1, 16 * 27 + 4 * 16) in plan.network
    assert LayerRow("matrix multiply", "int8", 1, 256 + 4 * 16) in plan.network
    assert sum(row.layers for row in plan.network if row.kind == "dequantize") == 4


def opening(monkeypatch, version, engine_type):
    """Make the plans of a recorded release open, as engines whose only layer computes in `engine_type`."""
    calls, plain = [], recorded_library
    monkeypatch.setattr(tensorrt_build, "device_problem", lambda: None)
    monkeypatch.setattr(tensorrt_build, "compute_capability", lambda: "8.6")
    layer = {"LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": engine_type}]}
    layer["Weights"] = {"Type": engine_type, "Count": 432}
    does = {
        "Runtime": {"__init__": lambda self, log: None, "deserialize_cuda_engine": lambda self, data: opened(self)},
        "ICudaEngine": {
            "create_execution_context": lambda self: self._library.IExecutionContext(),
            "create_engine_inspector": lambda self: self._library.EngineInspector(),
            "get_tensor_shape": lambda self, name: (-1, *SIZE, 3),
        },
        "IExecutionContext": {"set_input_shape": lambda self, name, shape: calls.append(("shape", shape)) or True},
        "EngineInspector": {"get_engine_information": lambda self, form: json.dumps({"Layers": [layer]})},
        "Refitter": {
            "__init__": lambda self, engine, log: None,
            "get_missing_weights": lambda self: [],
            "refit_cuda_engine": lambda self: calls.append(("refit",)) or True,
        },
        "OnnxParserRefitter": {
            "__init__": lambda self, refitter, log: None,
            "refit_from_file": lambda self, path: calls.append(("weights", path)) or True,
        },
    }

    def opened(runtime):
        calls.append(("host code", runtime.engine_host_code_allowed))
        calls.append(("core", runtime.DLA_core))
        return runtime._library.ICudaEngine()

    def library(name):
        module = plain(name)
        for class_name, methods in does.items():
            for method, function in methods.items():
                if hasattr(module, class_name):
                    assert method == "__init__" or hasattr(getattr(module, class_name), method)
                    setattr(getattr(module, class_name), method, function)
        return module

    monkeypatch.setitem(globals(), "recorded_library", library)
    return calls


@pytest.mark.parametrize("version", TENSORRT)
def test_where_a_device_opens_the_plan_its_own_layers_are_in_the_table(version, build, monkeypatch):
    calls = opening(monkeypatch, version, "Half")
    plan, _ = build(version, "fp16", max_batch=4)
    assert plan.engine == (LayerRow("convolution", "half", 1, 864),)
    assert ("shape", (4, *SIZE, 3)) in calls
    assert "layers of the engine" in plan.table()
    assert ("host code", None) in calls
    build(version, "fp16", version_compatible=True)
    assert ("host code", True) in calls
    with pytest.raises(UserError, match="must compute in float"):
        build(version, "fp32")


@pytest.mark.parametrize("version", [V10_3, V11_4])
def test_a_stripped_plan_is_filled_before_it_is_looked_at(version, build, monkeypatch, tmp_path):
    calls = opening(monkeypatch, version, "Half")
    build(version, "fp16", strip_weights=True)
    assert calls.index(("weights", str(tmp_path / "small.onnx"))) < calls.index(("refit",)) < len(calls) - 1


def test_a_build_that_fails_is_one_line(tmp_path):
    onnx.save(small_model("fp16"), tmp_path / "small.onnx")
    for version in TENSORRT:
        library = recorded_library(version)
        library.builds = False
        with pytest.raises(UserError, match=rf"{version} must build small\.onnx as fp16"):
            build_plan(tmp_path / "small.onnx", BuildOptions("fp16"), Backend("tensorrt", library, library.__version__))


EXTERNAL = {"CUBLAS", "CUBLAS_LT", "CUDNN"}


@pytest.mark.parametrize("version", TENSORRT)
@pytest.mark.parametrize(
    ("installed", "left_out"),
    [((), EXTERNAL), (("libcublas.so.12", "libcublasLt.so.12"), {"CUDNN"}), (("libcudnn.so.8",), EXTERNAL - {"CUDNN"})],
)
def test_kernels_of_libraries_that_are_not_there_are_not_tried(version, installed, left_out, build, monkeypatch):
    monkeypatch.setattr(tensorrt_compat, "_loads", lambda library: library in installed)
    _, told = build(version)
    names = set(RECORDED[version]["enums"]["TacticSource"])
    assert told.tactics == names - left_out and told.tactics >= {"JIT_CONVOLUTIONS"}


def test_rtx_has_no_such_choice(build):
    _, told = build(RTX)
    assert not hasattr(told, "tactics")


def test_a_library_loads_or_does_not():
    assert tensorrt_compat._loads("libc.so.6") and not tensorrt_compat._loads("libcublas.so.0")
