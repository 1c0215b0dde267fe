"""How pictures came: of files, videos, cameras; kept by training, compared on the line."""

import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from runtime.images.encoding import STAMP, Encoding, encoding_of, fourcc_text, stamp
from runtime.images.facts import ImageFacts
from runtime.images.preprocess import PLAIN
from runtime.sources.open import SourceSpec, open_source
from tests.support.fake_camera import FakeCamera
from train.data.facts import facts_of

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


def jpeg(quality: int, subsampling: str = "4:2:0") -> Encoding:
    return Encoding("file", "JPEG", "RGB", subsampling, quality, 8, "full")


PNG, DEEP_PNG = Encoding("file", "PNG", "RGB", bits=8), Encoding("file", "PNG", "I;16", bits=12)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (PNG, Encoding("file", "BMP", "L", bits=8), True),
        (PNG, DEEP_PNG, False),
        (DEEP_PNG, Encoding("file", "TIFF", "I;16", bits=16), True),  # each file says what its white is
        (jpeg(90), jpeg(93), True),
        (jpeg(90), jpeg(80), False),
        (jpeg(90), jpeg(90, "4:4:4"), False),
        (PNG, jpeg(100, "4:4:4"), False),
        (Encoding("file", "TIFF of JPEG", bits=8), PNG, False),
        (Encoding("camera", "YUYV"), Encoding("camera", "MJPG"), False),
        (Encoding("video", "h264", "I420"), Encoding("stream", "h264", "I420"), False),
        (Encoding("camera", "MJPG"), Encoding("camera", "MJPG"), True),
    ],
)
def test_what_gives_the_same_pixels(one: Encoding, other: Encoding, same: bool):
    assert one.same_pixels(other) == other.same_pixels(one) == same


def test_a_tiff_of_jpeg_is_not_lossless():
    assert encoding_of(_saved(format="TIFF", compression="jpeg")).codec == "TIFF of JPEG"
    assert encoding_of(_saved(format="TIFF", compression="tiff_lzw")).codec == "TIFF"


def test_a_captured_frame_says_how_it_came(tmp_path):
    camera = Encoding("camera", "MJPG", "I422")
    PICTURE.save(tmp_path / "frame.png", pnginfo=stamp(camera))
    assert encoding_of(tmp_path / "frame.png") == camera
    for text in ("{", "[]", '{"kind": "radio"}', "[" * 100_000):
        other = PngImagePlugin.PngInfo()
        other.add_text(STAMP, text)
        PICTURE.save(tmp_path / "other.png", pnginfo=other)
        assert encoding_of(tmp_path / "other.png").codec == "PNG"


def test_training_keeps_how_its_images_came(tmp_path):
    for index in range(3):
        PICTURE.save(tmp_path / f"{index}.png")
    PICTURE.save(tmp_path / "3.jpg", quality=90)
    facts = facts_of(sorted(tmp_path.iterdir()), PLAIN)
    assert ImageFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert not facts.differs(jpeg(88)) and not facts.differs(Encoding("file", "BMP"))
    assert facts.differs(jpeg(50)) == "PNG RGB, 8 bits (3 images), JPEG 4:2:0 quality 90, 8 bits (1 images)"
    older = {key: value for key, value in facts.to_json().items() if key != "encodings"}
    assert not ImageFacts.from_json(older).differs(jpeg(50))  # nobody looked
    for wrong in ({"kind": "file"}, {"kind": "file", "images": 0}, {"kind": "radio", "images": 1}, 3):
        with pytest.raises((KeyError, TypeError, ValueError)):
            ImageFacts.from_json({**older, "encodings": [wrong]})


def test_a_number_that_is_no_code_has_no_text():
    assert (fourcc_text(-1), fourcc_text(0), fourcc_text(cv2.VideoWriter.fourcc(*"I420"))) == ("", "", "I420")
