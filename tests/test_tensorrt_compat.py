"""Decisions for five releases, from their API surfaces as recorded in recorded_tensorrt_apis.json.

Recorded by importing each release's own Python binding (wheels tensorrt-bindings 8.6.1,
tensorrt-cu12-bindings 10.3.0, 10.13.3.9 and 11.4.0.106, tensorrt-rtx 1.7.1.116) and listing the members of
its enumerations and classes; the first four were imported against empty stand-ins for their libraries.
"""

import enum
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from export import tensorrt_compat as compat
from runtime.cuda import device_problem
from runtime.errors import UserError

RECORDED = json.loads(Path(__file__).with_name("recorded_tensorrt_apis.json").read_text())
V8, V10_3, V10_13, V11, RTX = RECORDED
ALL_TYPES = {"float", "float16", "int8", "uint8"}

# everything that export.tensorrt_build and runtime.tensorrt_engine call without asking whether it is there
CALLED = {
    "Builder": "create_network create_builder_config create_optimization_profile build_serialized_network",
    "IBuilderConfig": "set_flag clear_flag set_memory_pool_limit builder_optimization_level profiling_verbosity "
    "add_optimization_profile create_timing_cache set_timing_cache get_timing_cache",
    "OnnxParser": "parse parse_from_file num_errors get_error",
    "ParserError": "desc node",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "create_execution_context create_engine_inspector num_io_tensors get_tensor_name "
    "get_tensor_dtype get_tensor_shape get_tensor_profile_shape",
    "IExecutionContext": "set_input_shape set_tensor_address execute_async_v3",
    "EngineInspector": "execution_context get_engine_information",
    "ITimingCache": "serialize",
    "ILayer": "type name num_inputs get_input num_outputs get_output",
}
NAMED = {
    "BuilderFlag": "TF32",
    "MemoryPoolType": "WORKSPACE",
    "ProfilingVerbosity": "DETAILED",
    "LayerInformationFormat": "JSON",
}


def surface(version):
    """Rebuild a recorded surface as something that answers hasattr as the module would."""
    record = RECORDED[version]
    enums = {name: enum.IntEnum(name, members, start=0) for name, members in record["enums"].items()}
    classes = {name: type(name, (), dict.fromkeys(members)) for name, members in record["classes"].items()}
    return SimpleNamespace(**enums, **classes)


def test_the_recording_of_rtx_is_what_the_installed_module_has():
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if f"tensorrt_rtx {module.__version__}" != RTX:
        pytest.skip(f"the recording is of {RTX}, installed is {module.__version__}")
    for name, members in RECORDED[RTX]["enums"].items():
        assert sorted(getattr(module, name).__members__) == members
    for name, members in RECORDED[RTX]["classes"].items():
        assert sorted(member for member in dir(getattr(module, name)) if not member.startswith("_")) == members


@pytest.mark.parametrize("version", RECORDED)
def test_every_version_has_what_is_called_unasked(version):
    record = RECORDED[version]
    for name, members in CALLED.items():
        assert set(members.split()) <= set(record["classes"][name]), name
    for name, members in NAMED.items():
        assert set(members.split()) <= set(record["enums"][name]), name


@pytest.mark.parametrize(
    ("version", "expected"),
    [(V8, ("EXPLICIT_BATCH",)), *((version, ("STRONGLY_TYPED",)) for version in (V10_3, V10_13, V11, RTX))],
)
def test_network_flags(version, expected):
    module = surface(version)
    assert compat.network_flag_names(module) == expected
    member = getattr(module.NetworkDefinitionCreationFlag, expected[0])
    assert compat.network_flags(module) == 1 << int(member)
    assert compat.is_strongly_typed(module) == (version != V8)


def test_a_version_whose_only_way_is_strong_typing_needs_no_flag():
    module = SimpleNamespace(NetworkDefinitionCreationFlag=enum.IntEnum("Flags", []))
    assert compat.network_flags(module) == 0


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (V8, ("FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS")),
        (V10_3, ()),  # has BuilderFlag.FP16, which strong typing refuses
        (V10_13, ()),
        (V11, ()),
        (RTX, ("REQUIRE_USER_ALLOCATION",)),
    ],
)
def test_builder_flags(version, expected):
    module = surface(version)
    names = compat.builder_flag_names(module, ALL_TYPES)
    assert names == expected
    assert all(hasattr(module.BuilderFlag, name) for name in names)


def test_8_6_is_allowed_only_the_types_of_the_graph():
    module = surface(V8)
    assert compat.builder_flag_names(module, {"float", "uint8"}) == ()
    assert compat.builder_flag_names(module, {"float", "float16"}) == ("FP16", "OBEY_PRECISION_CONSTRAINTS")
    assert compat.builder_flag_names(module, {"float", "int8"}) == ("INT8", "OBEY_PRECISION_CONSTRAINTS")


@pytest.mark.parametrize("version", RECORDED)
def test_what_only_some_versions_have(version):
    module = surface(version)
    assert compat.has_progress_monitor(module) == (version != V8)
    assert compat.has_local_functions(module) == (version != V8)
    assert compat.has_target_choice(module) == (version == RTX)
    assert compat.times_kernels(module) == (version != RTX)


def test_target_names():
    assert compat.target_names(surface(V10_3)) == {}
    names = compat.target_names(surface(RTX))
    assert names["7.5"] == "SM75"
    assert names["12.0"] == "SM120"
    assert "NONE" not in names.values()


def backend_of(version):
    library, text = version.split()
    return compat.Backend(library, surface(version), text)


def test_targets_of_a_library_that_has_the_choice():
    backend = backend_of(RTX)
    assert backend.builds_without_device
    assert compat.choose_targets(backend, ()) == ("8.6", "8.9", "12.0")
    assert compat.choose_targets(backend, ("8.9", "7.5", "8.9")) == ("8.9", "7.5")
    with pytest.raises(UserError, match=r"7\.5.*8\.6.*found 8\.7, 9\.0"):
        compat.choose_targets(backend, ("8.6", "8.7", "9.0"))


def test_targets_of_a_library_that_has_none(monkeypatch):
    monkeypatch.setattr(compat, "compute_capability", lambda: "8.7")
    backend = backend_of(V10_3)
    assert compat.choose_targets(backend, ()) == ("8.7",)
    assert compat.choose_targets(backend, ("8.7",)) == ("8.7",)
    with pytest.raises(UserError, match=r"capability 8\.7; found 8\.6"):
        compat.choose_targets(backend, ("8.6",))


def test_auto_finds_what_builds_here():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    if device_problem() is None:
        pytest.skip("a device is here: auto may choose either library")
    backend = compat.find_backend()
    assert backend.library == "tensorrt_rtx"
    assert backend.version == backend.module.__version__


def test_no_library_names_both_and_how_to_install(monkeypatch):
    monkeypatch.setattr(compat, "_try_import", lambda library: f"No module named '{library}'")
    with pytest.raises(UserError, match=r"tensorrt: No module.*tensorrt_rtx: No module.*\[rtx\].*\[tensorrt\]"):
        compat.find_backend()


def test_tensorrt_without_a_device_cannot_build(monkeypatch):
    monkeypatch.setattr(compat, "_try_import", lambda library: backend_of(V10_3))
    monkeypatch.setattr(compat, "device_problem", lambda: "no libcuda.so.1")
    with pytest.raises(UserError, match=r"no libcuda\.so\.1.*take tensorrt_rtx"):
        compat.find_backend("tensorrt")
