"""Real builds with TensorRT-RTX, whose builder needs no device."""

import io
import os
import signal
import threading
from hashlib import sha256

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.trt import compat
from export.trt.build import build_plan, parse_onnx
from export.trt.compat import find_backend
from export.trt.config import attach_timing_cache
from export.trt.inspect import LayerRow
from export.trt.options import BuildOptions
from export.trt.precision import layers_of
from export.trt.progress import interrupt_flag, progress_monitor
from runtime.common.errors import UserError
from runtime.engines.sidecar import Artefact
from runtime.engines.trt.cuda import device_problem
from runtime.engines.trt.log import library_log
from tests.support.small_graphs import small_model

PRECISIONS = ("fp32", "fp16", "int8")
PLAN_START = b"vtrt"  # "trtv", the tag that TensorRT-RTX begins a plan with, in this machine's byte order
ONE_TARGET = ("8.6",)


@pytest.fixture(scope="module")
def backend():
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    return find_backend("tensorrt_rtx")


@pytest.fixture
def save(tmp_path):
    def save_model(model, name="small.onnx"):
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return save_model


def options(precision="fp32", **others):
    return BuildOptions(precision, **{"compute_capabilities": ONE_TARGET, **others})


@pytest.mark.parametrize(
    ("precision", "layers"),
    [
        ("fp32", {"convolution float": 1, "matrix_multiply float": 1}),
        ("fp16", {"convolution half": 1, "matrix_multiply half": 1}),
        ("int8", {"convolution int8": 1, "matrix_multiply int8": 1, "quantize": 2, "dequantize": 4}),
    ],
)
def test_a_graph_of_each_precision_builds_with_a_dynamic_batch(backend, save, precision, layers):
    plan = build_plan(save(small_model(precision)), options(precision, max_batch=4), backend)
    assert plan.data[: len(PLAN_START)] == PLAN_START
    assert len(plan.data) > 100_000  # the kernels of a whole target; a header alone is 64 bytes
    entry = Artefact("plan", precision, sha256(plan.data).hexdigest(), "tensorrt_rtx", backend.version, "8.6")
    assert plan.artefact == entry
    assert plan.layers == layers


@pytest.mark.parametrize(("graph", "asked"), [(g, a) for g in PRECISIONS for a in PRECISIONS if g != a])
def test_another_precision_than_the_graph_carries_is_caught(backend, save, graph, asked):
    with pytest.raises(UserError, match=rf"small.onnx must hold {asked}.*found 1 convolution.*1 matrix_multiply"):
        build_plan(save(small_model(graph)), options(asked), backend)


def test_one_layer_left_in_fp32_is_caught(backend, save):
    model = small_model("fp16")
    for node in model.graph.node:  # the Gemm takes what the cast to FP16 took, and gives what the cast back gave
        if node.name == "mixed_in_node":
            cast_in = node
        elif node.name == "mixed_half_node":
            gemm = node
        elif node.name == "mixed_node":
            cast_out = node
    gemm.input[0], gemm.output[0] = cast_in.input[0], cast_out.output[0]
    for node in (cast_in, cast_out):
        model.graph.node.remove(node)
    for initializer in model.graph.initializer:
        if initializer.name in ("mixed_w", "mixed_b"):
            wide = numpy_helper.to_array(initializer).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(wide, initializer.name))
    with pytest.raises(UserError, match="found 1 convolution half, 1 matrix_multiply float"):
        build_plan(save(model), options("fp16"), backend)


def test_a_plan_for_several_targets_records_them(backend, save):
    path = save(small_model())
    for asked, recorded in ((("8.6", "12.0"), "8.6+12.0"), ((), "8.6+8.9+12.0")):
        plan = build_plan(path, options(compute_capabilities=asked), backend)
        assert plan.artefact.compute_capability == recorded


def test_a_build_repeats_and_the_largest_batch_is_part_of_it(backend, save):
    path = save(small_model())
    one, again, four = (build_plan(path, options(max_batch=batch), backend).data for batch in (1, 1, 4))
    assert one == again  # nothing is timed, so nothing depends on chance
    assert one != four


def test_a_target_without_fp32_products_is_one_line_with_the_reason(backend, save):
    with pytest.raises(UserError, match=r"must build small\.onnx as fp32; found .*Turing"):
        build_plan(save(small_model()), options(compute_capabilities=("7.5",)), backend)


def test_a_fixed_batch_must_be_the_one_asked_for(backend, save):
    path = save(small_model(batch=2))
    assert build_plan(path, options(max_batch=2), backend).data
    with pytest.raises(UserError, match="the graph takes batches of 2; found max_batch 4"):
        build_plan(path, options(max_batch=4), backend)


def test_workspace_and_optimisation_level_are_taken(backend, save):
    assert build_plan(save(small_model()), options(workspace_mib=64, optimization_level=2), backend).data


def test_auxiliary_streams_are_taken(backend, save):
    path = save(small_model())
    assert all(build_plan(path, options(aux_streams=streams), backend).data for streams in (0, 2))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version_compatible": True}, "its plans open only in the release that built them"),
        ({"hardware_compatible": True}, "name the GPUs with --target"),
        ({"dla_core": 0, "precision": "fp16"}, "it computes on the GPU alone"),
    ],
)
def test_what_the_library_would_ignore_in_silence_is_refused(backend, save, values, message):
    with pytest.raises(UserError, match=rf"found tensorrt_rtx {backend.version}: {message}"):
        build_plan(save(small_model("fp16")), options(**values), backend)


@pytest.mark.skipif(device_problem() is None, reason="a CUDA device is here")
@pytest.mark.parametrize("option", ["strip_weights", "refittable"])
def test_refittable_plans_are_refused_before_the_compiler_fails(backend, save, option):
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} needs a CUDA device"):
        build_plan(save(small_model()), options(**{option: True}), backend)
    assert build_plan(save(small_model()), options(), backend).data


def test_the_table_of_a_real_network(backend, save):
    # Conv 16x3x3x3 with its bias, of 4 bytes in INT8; Gemm 16x16, whose bias the parser makes an addition
    expected = {
        "fp32": ("float", 4 * (432 + 16), 4 * 256),
        "fp16": ("half", 2 * (432 + 16), 2 * 256),
        "int8": ("int8", 432 + 4 * 16, 256),
    }
    for precision, (word, convolution, product) in expected.items():
        plan = build_plan(save(small_model(precision)), options(precision), backend)
        assert LayerRow("convolution", word, 1, convolution) in plan.network
        assert LayerRow("matrix multiply", word, 1, product) in plan.network
    lines = plan.table().splitlines()
    assert lines[0].startswith("layers of the network")
    assert lines[-1].split() == ["plan", f"{len(plan.data) / 1e6:.3f}", "MB"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_batch": 0}, "at least 1 frame"),
        ({"workspace_mib": 0}, "at least 1 MiB"),
        ({"optimization_level": 6}, r"0\.\.5; found 6"),
        ({"aux_streams": -1}, "at least 0; found -1"),
        ({"dla_core": -1, "precision": "fp16"}, "at least 0; found -1"),
    ],
)
def test_options_out_of_range(values, message):
    with pytest.raises(UserError, match=message):
        BuildOptions(**values)


def rename_conv(model):
    model.graph.node[3].op_type = "Frobnicate"


def shift_zero_point(model):
    for initializer in model.graph.initializer:
        if initializer.name == "features_in_zero":
            initializer.CopyFrom(numpy_helper.from_array(np.int8(3), initializer.name))


def mix_types(model):
    node = next(node for node in model.graph.node if node.name == "mixed_half_node")
    node.input[0] = "fibers"  # FP32, beside FP16 weights


@pytest.mark.parametrize(
    ("precision", "spoil", "message"),
    [
        ("fp32", rename_conv, r"node 3 'features_node' \(Frobnicate\): "),
        ("int8", shift_zero_point, r"node 3 'features_q_node' \(QuantizeLinear\): .*zero point"),
        ("fp16", mix_types, r"'mixed_half_node' \(Gemm\): .*(Half|Float)"),
    ],
)
def test_a_refused_node_is_named_in_one_line(backend, save, precision, spoil, message):
    model = small_model(precision)
    spoil(model)
    with pytest.raises(UserError, match=message) as caught:
        build_plan(save(model), options(precision), backend)
    assert "\n" not in str(caught.value)
    assert "CUDA driver" not in str(caught.value)  # true on a machine without one, and not the reason


def test_a_file_that_is_no_onnx(backend, tmp_path):
    for name, content in (("noise.onnx", b"\x00\xff" * 50), ("empty.onnx", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} must be an ONNX"):
            build_plan(tmp_path / name, options(), backend)
    with pytest.raises(UserError, match="no such file"):
        build_plan(tmp_path / "missing.onnx", options(), backend)


def test_an_input_that_is_not_the_contract(backend, save):
    model = small_model()
    model.graph.input[0].name = "images"
    model.graph.node[0].input[0] = "images"
    with pytest.raises(UserError, match=r"input must be frames .*found images"):
        build_plan(save(model), options(), backend)


def test_a_failure_leaves_nothing_for_the_next_build(backend, save):
    with pytest.raises(UserError):
        build_plan(save(small_model()), options(compute_capabilities=("7.5",)), backend)
    with pytest.raises(UserError) as caught:
        build_plan(save(small_model()), options("int8"), backend)
    assert "Turing" not in str(caught.value)
    assert build_plan(save(small_model()), options(), backend).data


def test_errors_are_not_printed_unless_asked_for(backend, save, capfd):
    path = save(small_model())
    for verbose in (False, True):
        with pytest.raises(UserError):
            build_plan(path, options(compute_capabilities=("7.5",), verbose=verbose), backend)
        assert ("Turing" in capfd.readouterr().err) == verbose


def test_ctrl_c_cancels_the_build(backend, save, monkeypatch):
    seen = []

    def interrupting_monitor(module, show, interrupted):
        monitor = progress_monitor(module, show, interrupted)
        base = type(monitor)

        class Interrupting(base):
            def step_complete(self, name, step):
                seen.append(name)
                if len(seen) == 5:
                    os.kill(os.getpid(), signal.SIGINT)  # what a terminal does on Ctrl-C
                return super().step_complete(name, step)

        return Interrupting()

    monkeypatch.setattr("export.trt.build.progress_monitor", interrupting_monitor)
    path = save(small_model())
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        build_plan(path, options(), backend)
    interrupted_after = len(seen)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    seen.clear()
    monkeypatch.setattr(
        "export.trt.build.progress_monitor",
        lambda module, show, _: interrupting_monitor(module, show, threading.Event()),
    )
    with pytest.raises(KeyboardInterrupt):  # the same build whose monitor does not look at the flag runs to its end
        build_plan(path, options(), backend)
    assert interrupted_after < len(seen) / 2


def test_outside_the_main_thread_ctrl_c_is_left_alone():
    before = signal.getsignal(signal.SIGINT)
    handlers = []

    def look():
        with interrupt_flag() as flag:
            handlers.append((signal.getsignal(signal.SIGINT), flag.is_set()))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert handlers == [(before, False)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_only_when_asked_for(backend, save, monkeypatch):
    path = save(small_model())
    for show, stream in ((False, Terminal()), (True, Terminal()), (True, io.StringIO())):
        monkeypatch.setattr("sys.stderr", stream)
        build_plan(path, options(progress=show), backend)
        assert ("Building engine" in stream.getvalue()) == (show and stream.isatty())


def test_the_timing_cache_of_a_library_that_times_nothing_is_left_alone_with_a_note(backend, save, tmp_path, capsys):
    cache = tmp_path / "timing.cache"
    build_plan(save(small_model()), options(timing_cache=cache), backend)
    assert "no timing cache" in capsys.readouterr().err
    assert not cache.exists()


@pytest.mark.filterwarnings("ignore:.*Timing cache:DeprecationWarning")  # RTX takes one and puts nothing in
def test_a_foreign_timing_cache_is_replaced_with_a_note(backend, tmp_path, capsys):
    log = library_log(backend.module)
    builder = backend.module.Builder(log)
    cache = tmp_path / "timing.cache"
    for content, noted in ((None, False), (b"of another library" * 8, True)):
        if content is not None:
            cache.write_bytes(content)
        config = builder.create_builder_config()
        attach_timing_cache(config, cache, log)
        assert ("starting a new timing cache" in capsys.readouterr().err) == noted
        assert bytes(config.get_timing_cache().serialize())  # one is attached either way


def test_without_strong_typing_functions_are_inlined_and_types_told(backend, save, monkeypatch):
    model = small_model()
    body = [helper.make_node("Tanh", ["x"], ["y"], name="inner")]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Clamp", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("local", 1))
    node = next(node for node in model.graph.node if node.op_type == "Tanh")
    node.op_type, node.domain = "Clamp", "local"
    path = save(model)
    told = []
    monkeypatch.setattr(compat, "is_strongly_typed", lambda module, on_dla: False)
    monkeypatch.setattr(compat, "has_local_functions", lambda module: False)
    monkeypatch.setattr("export.trt.build.constrain_layers", lambda *arguments: told.append(arguments))
    log = library_log(backend.module)
    builder = backend.module.Builder(log)
    network = builder.create_network(0)
    parser = backend.module.OnnxParser(network, log)
    types = parse_onnx(parser, network, path, backend)
    assert told == [(network, backend.module, types)]
    assert types["clamped"] == "float"
    activations = [layer for layer in layers_of(network) if layer.type.name == "ACTIVATION"]
    assert [layer.get_output(0).name for layer in activations] == ["clamped"]
