import onnx
import pytest

from export.graph.onnx_files import get_info, load_model, save_model
from export.graph.weighted_layers import WEIGHTED
from export.precision import main
from export.precisions.typing import to_fp16, to_int8
from runtime.common.errors import UserError
from runtime.report.paper_table import cflow_row
from tests.support.export_fixtures import CALIBRATION_DATA, exported, small_config
from tests.support.onnx_inspection import copy_of, mobilenet, nodes_of, small_model


class TestCommand:
    def test_int8_with_the_shipped_images(self, tmp_path, capsys):
        save_model(small_model(), tmp_path / "cable.onnx")
        main([str(tmp_path / "cable.onnx"), "--int8", "--calibration-data", str(CALIBRATION_DATA)])
        typed = load_model(tmp_path / "cable.int8.onnx")
        assert get_info(typed, "").precision == "int8" and nodes_of(typed, "QuantizeLinear")
        assert "wrote" in capsys.readouterr().out

    def test_fp16(self, tmp_path):
        save_model(small_model(), tmp_path / "cable.onnx")
        main([str(tmp_path / "cable.onnx"), "--fp16"])
        assert get_info(load_model(tmp_path / "cable.fp16.onnx"), "").precision == "fp16"

    def test_refuses_an_unfused_graph(self, tmp_path):
        save_model(exported(small_config()).unfused, tmp_path / "cable.unfused.onnx")
        with pytest.raises(UserError, match=r"must be fused; found an unfused export; run export\.fuse"):
            main([str(tmp_path / "cable.unfused.onnx"), "--fp16"])
        assert [path.name for path in tmp_path.iterdir()] == ["cable.unfused.onnx"]

    def test_refuses_an_onnx_of_others(self, tmp_path):
        model = copy_of(small_model())
        del model.metadata_props[:]
        save_model(model, tmp_path / "cable.onnx")
        with pytest.raises(UserError, match=r"written by export\.to_onnx"):
            main([str(tmp_path / "cable.onnx"), "--fp16"])

    @pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"sidecar": {"schema": "other"}}'])
    def test_refuses_damaged_metadata(self, text):
        model = copy_of(small_model())
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {"cflow-edge": text})
        with pytest.raises(UserError, match="cable"):
            get_info(model, "cable")

    @pytest.mark.parametrize("content", [b"", b"\x00\xff no onnx"])
    def test_refuses_a_file_that_is_no_onnx(self, tmp_path, content):
        (tmp_path / "cable.onnx").write_bytes(content)
        with pytest.raises(UserError, match="must be an ONNX file"):
            load_model(tmp_path / "cable.onnx")

    def test_refuses_a_missing_file(self, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            load_model(tmp_path / "cable.onnx")


def test_files_are_within_half_and_a_third_of_the_papers():
    """MobileNetV3, whose 25 MB of Table 6 are the tightest: its tables for positions do not shrink with its weights."""
    model = mobilenet()
    names = {node.input[0] for node in nodes_of(model, *WEIGHTED)}
    paper = cflow_row("mobilenet_v3_large", (256, 256)).size_mb
    assert model.ByteSize() / 1e6 > paper / 2  # FP32 is not
    assert to_fp16(model).ByteSize() / 1e6 <= paper / 2
    assert to_int8(model, dict.fromkeys(names, (-4.0, 4.0))).ByteSize() / 1e6 <= paper / 3
