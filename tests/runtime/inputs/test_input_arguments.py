"""The options of triggers and decisions, as `runtime.infer` has them."""

import pytest

from runtime import infer
from runtime.common.errors import UserError, run_command
from runtime.inputs import arguments
from runtime.inputs.registry import TriggerSpec
from runtime.triggers.options import DecideOptions, TriggerOptions

FORMS = "http, mqtt:TOPIC, opcua, opcua:NODE, modbus, modbus:COIL, camera"
NEEDED = ["--engine", "cable.onnx", "--camera", "0"]


def parsed(*words):
    return infer.build_parser().parse_args([*NEEDED, *words])


def refused(capsys, *words):
    try:
        status = run_command(infer.main, [*NEEDED, *words, "--dry-run"])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--deadline", "80"], "--deadline needs --trigger WHAT"),
        (["--trigger-queue", "8"], "--trigger-queue needs --trigger WHAT"),
        (["--trigger-delay", "0"], "--trigger-delay needs --trigger WHAT"),
        (["--trigger-skip", "0"], "--trigger-skip needs --trigger WHAT"),
        (["--camera-trigger", "software"], "--camera-trigger software needs --trigger WHAT"),
        (["--camera-trigger", "Software", "--trigger", "camera"], "--camera-trigger software needs --trigger WHAT"),
        (["--debounce", "2"], "--debounce needs --decide NofM"),
        (["--trigger", "http"], "--trigger http needs --serve [HOST:]PORT"),
        (["--trigger", "mqtt:a"], "--trigger mqtt:TOPIC needs --mqtt URL"),
        (["--trigger", "camera", "--trigger", "http", "--serve", "0"], "--trigger camera stands alone"),
        (["--trigger", "camera", "--decide", "3of5"], "--decide is for cameras that run by themselves"),
        (["--trigger", "mqtt"], f"expected one of {FORMS}, found 'mqtt'"),
        (["--trigger", "mqtt:"], f"expected one of {FORMS}, found 'mqtt:'"),
        (["--trigger", "modbus:"], f"expected one of {FORMS}, found 'modbus:'"),
        (["--trigger", "http:8080"], f"expected one of {FORMS}, found 'http:8080'"),
        (["--trigger", "modbus:7"], "--trigger modbus needs --modbus [HOST:]PORT"),
        (["--trigger", "modbus", "--trigger", "modbus:7", "--modbus", "0"], "--trigger modbus stands once"),
        (["--trigger", "http", "--trigger", "http", "--serve", "0"], "--trigger http stands once"),
        (["--trigger", "camera", "--deadline", "0"], "expected a number above 0, found '0'"),
        (["--trigger", "camera", "--trigger-queue", "0"], "expected a whole number from 1 up, found '0'"),
        (["--trigger", "camera", "--trigger-skip", "-1"], "expected a whole number from 0 up, found '-1'"),
        (["--part-from", "http", "--serve", "0"], "--part-from needs --trigger camera"),
        (["--part-from", "http", "--serve", "0", "--trigger", "http"], "--part-from needs --trigger camera"),
        (["--part-from", "camera", "--trigger", "camera"], "--part-from needs --trigger camera, and names another way"),
        (["--part-from", "modbus:7", "--trigger", "camera"], "--part-from modbus needs --modbus [HOST:]PORT"),
        (["--part-from", "modbus:3", "--trigger", "camera", "--modbus", "0"], "found 3, where it tells Done"),
        (["--part-from", "mqtt:a", "--trigger", "camera"], "--part-from mqtt:TOPIC needs --mqtt URL"),
        (["--part-from", "serial", "--trigger", "camera"], f"expected one of {FORMS}, found 'serial'"),
        (["--decide", "5of3"], "--decide takes NofM, N of the last M frames; found '5of3'; for example 3of5"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_opens(capsys, words, said):
    error = refused(capsys, *words)
    assert said in error and "Traceback" not in error


def test_a_camera_of_its_own_line_needs_a_camera(capsys, tmp_path):
    words = ["--engine", "cable.onnx", "--source", str(tmp_path), "--trigger", "camera", "--dry-run"]
    assert run_command(infer.main, words) == 2
    assert "--trigger camera is for cameras and streams" in capsys.readouterr().err


def test_options_become_what_the_inspection_takes():
    triggers = ("http", "mqtt:line1/trigger", "opcua:ns=2;s=Line1:Trigger", "modbus:100")
    args = parsed(*(f"--trigger={text}" for text in triggers), "--deadline", "80", "--trigger-skip", "0")
    assert args.trigger == [TriggerSpec(*text.split(":", 1)) for text in triggers]
    assert [*map(str, args.trigger)] == [*triggers]
    orders = arguments.orders_from(args)
    assert orders is not None and orders.options == TriggerOptions(deadline_s=0.08, skip=0)
    assert arguments.orders_from(parsed()) is None and arguments.decide_from(parsed()) is None
    assert arguments.decide_from(parsed("--decide", "3of5", "--debounce", "2")) == DecideOptions(3, 5, 2)
    camera = arguments.orders_from(parsed("--trigger", "camera"))
    assert camera is not None and camera.options == TriggerOptions(each_frame=True)
    named = arguments.orders_from(parsed("--trigger", "camera", "--part-from", "http"))
    assert named is not None and named.options == TriggerOptions(each_frame=True, named=True)


def test_an_input_twice_and_one_that_nothing_gives_are_refused():
    twice = parsed("--trigger", "http", "--trigger", "http")
    with pytest.raises(UserError, match="http twice"):
        arguments.inputs_from(twice, [])
    with pytest.raises(UserError, match="--trigger http needs a server"):
        arguments.inputs_from(parsed("--trigger", "http"), [None])
