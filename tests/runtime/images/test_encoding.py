import io

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.images.encoding import Encoding, encoding_of, fourcc_text
from runtime.sources.open import SourceSpec, open_source
from tests.support.fake_camera import FakeCamera

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def _saved(**options):
    held = io.BytesIO()
    PICTURE.save(held, **options)
    held.seek(0)
    return held


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 95, 100])
@pytest.mark.parametrize(("number", "subsampling"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_a_jpegs_quality_and_subsampling_are_those_it_was_written_with(quality, number, subsampling):
    found = encoding_of(_saved(format="JPEG", quality=quality, subsampling=number))
    assert found == Encoding("file", "JPEG", "RGB", subsampling, quality, 8, "full")
    assert found.describe() == f"JPEG {subsampling} quality {quality}, 8 bits"
    assert Encoding.from_json(found.to_json()) == found


def test_depth_is_the_files(tmp_path):
    assert encoding_of(_saved(format="PNG")).bits == 8
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    assert encoding_of(tmp_path / "deep.png").bits == 16
    assert cv2.imwrite(str(tmp_path / "colour.png"), np.full((8, 8, 3), 4000, np.uint16))
    assert encoding_of(tmp_path / "colour.png").bits == 16
    (tmp_path / "none.png").write_bytes(b"none")
    assert encoding_of(tmp_path / "none.png") is None


@pytest.mark.parametrize("value", [{"kind": "radio"}, {"kind": "file", "bits": "8"}, {"kind": "file", "what": 1}, {}])
def test_what_is_no_encoding_is_refused(value):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Encoding.from_json(value)


def test_each_source_says_how_its_pictures_come(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(_saved(format="JPEG", quality=90).getvalue())
    with open_source(SourceSpec.parse(str(tmp_path))) as source:
        assert source.encoding is None
        list(source)
        assert source.encoding.quality == 90
    with open_source(SourceSpec.parse(f"watch:{tmp_path}")) as source:
        next(iter(source))
        assert source.encoding.quality == 90
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.asarray(PICTURE))
    writer.release()
    with open_source(SourceSpec.parse(str(tmp_path / "clip.avi"))) as source:
        list(source)
        assert (source.encoding.kind, source.encoding.codec) == ("video", "MJPG")
    camera = FakeCamera().install(monkeypatch)
    camera.properties[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*"YUYV")
    camera.put(10)
    with open_source(SourceSpec.parse("camera:0")) as source:
        next(iter(source))
        assert source.encoding == Encoding("camera", "YUYV")
        camera.put(None)


def test_a_number_that_is_no_code_has_no_text():
    assert (fourcc_text(-1), fourcc_text(0), fourcc_text(cv2.VideoWriter.fourcc(*"I420"))) == ("", "", "I420")
