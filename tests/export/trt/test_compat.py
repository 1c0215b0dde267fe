"""Decisions for seven releases, from their API surfaces as recorded (see record_tensorrt_api)."""

import enum
from types import SimpleNamespace

import pytest

from export.trt import compat
from export.trt.options import BuildOptions
from runtime.common.errors import UserError
from runtime.engines.trt.cuda import device_problem
from tests.support.fake_tensorrt import FLAGS_FOR_TYPES, RECORDED, RTX, RTX_1_4, TENSORRT, V8, V10_3, recorded_library
from tests.support.record_tensorrt_api import surface

ALL_TYPES = {"float", "float16", "int8", "uint8"}
STRONG = [version for version in RECORDED if version != V8]
WITH_TARGETS = (RTX_1_4, RTX)


def test_the_recording_of_rtx_is_what_the_installed_module_has():
    module = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    version = f"tensorrt_rtx {module.__version__}"
    if version not in RECORDED:
        pytest.skip(f"recorded are {', '.join(RECORDED)}, installed is {version}")
    recorded = {key: value for key, value in RECORDED[version].items() if key != "read"}
    assert surface(module) == recorded


def test_a_rebuilt_release_has_its_names_and_no_other():
    library = recorded_library(V8)
    config = library.IBuilderConfig()
    config.max_aux_streams = 2
    with pytest.raises(AttributeError, match="progress_monitor"):
        config.progress_monitor = None
    with pytest.raises(AttributeError, match="progress_monitor"):
        _ = config.progress_monitor
    assert not hasattr(library.BuilderFlag, "STRIP_PLAN")
    for version in RECORDED:
        assert surface(recorded_library(version)) == {k: RECORDED[version][k] for k in ("enums", "classes")}


@pytest.mark.parametrize(
    ("version", "expected"),
    [(V8, ("EXPLICIT_BATCH",)), *((version, ("STRONGLY_TYPED",)) for version in STRONG)],
)
def test_network_flags(version, expected):
    module = recorded_library(version)
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
        *((version, ()) for version in TENSORRT[1:]),  # 10.x has BuilderFlag.FP16, which strong typing refuses
        *((version, ("REQUIRE_USER_ALLOCATION",)) for version in WITH_TARGETS),
    ],
)
def test_builder_flags(version, expected):
    module = recorded_library(version)
    names = compat.builder_flag_names(module, ALL_TYPES, BuildOptions())
    assert names == expected
    assert all(hasattr(module.BuilderFlag, name) for name in names)


def test_8_6_is_allowed_only_the_types_of_the_graph():
    module = recorded_library(V8)
    assert compat.builder_flag_names(module, {"float", "uint8"}, BuildOptions()) == ()
    assert compat.builder_flag_names(module, {"float", "float16"}, BuildOptions()) == (
        "FP16",
        "OBEY_PRECISION_CONSTRAINTS",
    )
    assert compat.builder_flag_names(module, {"float", "int8"}, BuildOptions()) == (
        "INT8",
        "OBEY_PRECISION_CONSTRAINTS",
    )


@pytest.mark.parametrize("version", RECORDED)
def test_what_only_some_versions_have(version):
    module = recorded_library(version)
    assert compat.has_progress_monitor(module) == (version != V8)
    assert compat.has_local_functions(module) == (version != V8)
    assert compat.has_aux_streams(module)
    assert compat.has_target_choice(module) == (version in WITH_TARGETS)
    assert compat.times_kernels(module) == (version not in WITH_TARGETS)


def test_target_names():
    assert compat.target_names(recorded_library(V10_3)) == {}
    names = compat.target_names(recorded_library(RTX))
    assert names["7.5"] == "SM75"
    assert names["12.0"] == "SM120"
    assert "NONE" not in names.values()


def backend_of(version):
    library, text = version.split()
    return compat.Backend(library, recorded_library(version), text)


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


# Options that a version or a library lacks, or that it would drop in silence


@pytest.fixture
def on_gpu(monkeypatch):
    """Return a function that pretends a device of a compute capability."""

    def pretend(capability, problem=None):
        monkeypatch.setattr(compat, "compute_capability", lambda: capability)
        monkeypatch.setattr(compat, "device_problem", lambda: problem)

    pretend("8.6")
    return pretend


def check(version, **options):
    compat.check_options(backend_of(version), BuildOptions(**options))


FP16 = {"precision": "fp16"}
ASKED = {
    "--aux-streams": {"aux_streams": 0},
    "--version-compatible": {"version_compatible": True},
    "--hardware-compatible": {"hardware_compatible": True},
    "--strip-weights": {"strip_weights": True},
    "--refittable": {"refittable": True},
    "--dla": {"dla_core": 0, **FP16},
}


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("option", ASKED)
def test_each_option_is_taken_or_refused_by_name(version, option, on_gpu):
    lacking = {V8: {"--strip-weights"}}
    lacking |= dict.fromkeys(WITH_TARGETS, frozenset(compat.IGNORED_BY_RTX))
    if option not in lacking.get(version, ()):
        return check(version, **ASKED[option])
    with pytest.raises(UserError, match=rf"^{option} needs .*found {version}.*leave it out$"):
        check(version, **ASKED[option])


@pytest.mark.parametrize("version", RECORDED)
@pytest.mark.parametrize("option", compat.NEEDED_NAMES)
def test_a_release_without_the_name_is_refused_too(version, option, on_gpu):
    backend = backend_of(version)
    holder, name = compat.NEEDED_NAMES[option]
    if holder in RECORDED[version]["enums"]:
        left = [member for member in RECORDED[version]["enums"][holder] if member != name]
        setattr(backend.module, holder, enum.IntEnum(holder, left, start=0))
    else:
        delattr(getattr(backend.module, holder), name)
    with pytest.raises(UserError, match=rf"^{option} needs a library with {holder}\.{name}; found {version} without"):
        compat.check_options(backend, BuildOptions(**ASKED[option]))


@pytest.mark.parametrize("version", WITH_TARGETS)
@pytest.mark.parametrize("option", ["--strip-weights", "--refittable"])
def test_rtx_compiles_no_refittable_plan_without_a_device(version, option, on_gpu):
    on_gpu("8.6", problem="no libcuda.so.1")
    with pytest.raises(UserError, match=rf"^{option} needs a CUDA device.*found no libcuda\.so\.1"):
        check(version, **ASKED[option])


@pytest.mark.parametrize(("capability", "good"), [("7.5", False), ("8.0", True), ("8.7", False), ("12.0", True)])
def test_hardware_compatibility_begins_with_ampere_and_leaves_jetsons_out(capability, good, on_gpu):
    on_gpu(capability)
    if good:
        return check(V10_3, hardware_compatible=True)
    with pytest.raises(UserError, match=rf"found compute capability {capability}"):
        check(V10_3, hardware_compatible=True)


@pytest.mark.parametrize("version", TENSORRT)
def test_int8_where_types_are_told_by_flags(version, on_gpu):
    by_flags = version in FLAGS_FOR_TYPES
    if by_flags:
        with pytest.raises(UserError, match=rf"--dla needs --fp16 here; found {version}, whose DLA takes no Q/DQ"):
            check(version, precision="int8", dla_core=0)
    else:
        check(version, precision="int8", dla_core=0)
    if version == V8:
        with pytest.raises(UserError, match="--refittable needs --fp16 or --fp32 here"):
            check(version, precision="int8", refittable=True)
    else:
        check(version, precision="int8", refittable=True)


@pytest.mark.parametrize("version", TENSORRT)
def test_a_dla_takes_its_types_from_flags_as_long_as_there_are_any(version):
    module = recorded_library(version)
    options = BuildOptions("fp16", dla_core=0)
    names = compat.builder_flag_names(module, {"float", "float16"}, options)
    if version in FLAGS_FOR_TYPES:
        assert names == ("FP16", "OBEY_PRECISION_CONSTRAINTS", "GPU_FALLBACK")
        assert "STRONGLY_TYPED" not in compat.network_flag_names(module, on_dla=True)
    else:
        assert names == ("GPU_FALLBACK",)
        assert compat.network_flag_names(module, on_dla=True) == ("STRONGLY_TYPED",)


@pytest.mark.parametrize("version", RECORDED)
def test_the_flags_of_compatible_and_refittable_plans(version):
    module = recorded_library(version)
    always = compat.builder_flag_names(module, (), BuildOptions())

    def added(**options):
        names = compat.builder_flag_names(module, (), BuildOptions(**options))
        assert names[: len(always)] == always
        return names[len(always) :]

    assert added(version_compatible=True) == ("VERSION_COMPATIBLE",)
    assert added(refittable=True) == ("REFIT",)
    assert added(strip_weights=True) == ("STRIP_PLAN", "REFIT_IDENTICAL")
    assert added(aux_streams=2, hardware_compatible=True) == ()  # attributes, not flags


def test_a_dla_core_must_be_there():
    compat.check_dla_core(SimpleNamespace(num_DLA_cores=2), 1)
    for there, asked in ((2, 2), (0, 0)):
        with pytest.raises(UserError, match=rf"--dla {asked} needs .*found {there} DLA cores"):
            compat.check_dla_core(SimpleNamespace(num_DLA_cores=there), asked)
