"""What an ONNX of ours says of itself comes back whole, and a file of an engine that stands is not written over."""

from dataclasses import fields, replace
from pathlib import Path

import onnx
import pytest

from export import fuse, precision, to_onnx
from export.graph.onnx_files import ExportInfo, check_no_engines, get_info, set_info
from runtime.common.errors import UserError, run_command
from runtime.engines.sidecar import read_sidecar, read_whole_sidecar, sidecar_path, write_sidecar
from runtime.images.encoding import Encoding
from runtime.images.facts import MARGINS, Encodings, ImageFacts
from tests.support.export_fixtures import exported, small_config
from tests.support.tiny_engine import tiny_model, tiny_sidecar, write_tiny_engine

FACTS = ImageFacts(
    7,
    dict.fromkeys(MARGINS, (0.25, 0.5)),
    (Encodings(Encoding("file", "JPEG", "RGB", "4:2:0", 90, 8, "full"), 5), Encodings(Encoding("camera", "YUYV"), 2)),
)


def test_everything_that_a_model_says_of_itself_comes_back(tmp_path: Path):
    sidecar = tiny_sidecar(write_tiny_engine(tmp_path), (32, 48), ("a", "b"))
    sidecar = replace(sidecar, image_facts=FACTS, white=4095, network_sha256="a" * 64, versions={"torch": "2.6"})
    info = ExportInfo(sidecar, 2, False, False, "here", True, "fp16", one_grid=True, more_blocks=(2, 2))
    for field in fields(ExportInfo):
        assert getattr(info, field.name) != field.default
    model = tiny_model((32, 48), 2.0)
    set_info(model, info)
    assert get_info(onnx.ModelProto.FromString(model.SerializeToString()), "cable.onnx") == info
    write_sidecar(tmp_path / "tiny.onnx", sidecar)
    assert read_sidecar(tmp_path / "tiny.onnx") == sidecar
    following = replace(sidecar, white=1023)
    write_sidecar(tmp_path / "tiny.onnx", sidecar.followed_by(following))  # as in the middle of a build
    assert read_whole_sidecar(tmp_path / "tiny.onnx") == sidecar.followed_by(following)


COMMANDS = {
    "to_onnx": (to_onnx.main, lambda engine: [str(engine.with_suffix(".pt")), "--out", str(engine)]),
    "fuse": (fuse.main, lambda engine: [str(engine.with_suffix(".unfused.onnx")), "--out", str(engine)]),
}


@pytest.mark.parametrize(("command", "arguments"), COMMANDS.values(), ids=COMMANDS.keys())
def test_a_file_of_an_engine_is_not_written_over(command, arguments, tmp_path: Path, capsys):
    engine = write_tiny_engine(tmp_path)
    onnx.save(exported(small_config()).unfused, engine.with_suffix(".unfused.onnx"))
    before = engine.read_bytes()
    assert run_command(command, arguments(engine)) == 2
    said = capsys.readouterr().err
    assert "tiny.onnx must not be a file of an engine; found tiny.json describes it; write to another name" in said
    assert engine.read_bytes() == before


def test_neither_is_one_of_another_precision(tmp_path: Path, capsys):
    engine = write_tiny_engine(tmp_path)
    half = engine.rename(engine.with_name("tiny.fp16.onnx"))
    assert run_command(precision.main, [str(engine), "--fp16"]) == 2
    assert "tiny.fp16.onnx must not be a file of an engine" in capsys.readouterr().err
    assert half.is_file()


def test_a_file_that_no_sidecar_describes_may_be_replaced(tmp_path: Path):
    engine = write_tiny_engine(tmp_path)
    engine.write_bytes(b"something else by now")
    check_no_engines(engine)
    sidecar_path(engine).unlink()
    check_no_engines(engine)
    with pytest.raises(UserError, match=r"--out must end in \.onnx"):
        check_no_engines(tmp_path / "cable.pt")
