"""How pictures came: formats, subsampling, quality and depth, in training's record and on the line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from runtime.images.facts import ImageFacts
from runtime.images.form import FORM_KEY, describe, form_of, is_known
from runtime.images.preprocess import PLAIN, read_with
from train.data.facts import facts_of

RNG = np.random.default_rng(3)
COLOURS = Image.fromarray(RNG.integers(0, 256, (32, 48, 3)).astype(np.uint8))
DEEP = Image.fromarray(RNG.integers(0, 65536, (32, 48)).astype(np.uint16))


@pytest.mark.parametrize(
    ("image", "suffix", "options", "form"),
    [
        (COLOURS, "png", {}, "PNG, 8 bits"),
        (COLOURS.convert("P"), "png", {}, "PNG, 8 bits"),
        (DEEP, "png", {}, "PNG, 16 bits"),
        (DEEP, "tif", {}, "TIFF, 16 bits"),
        (COLOURS, "bmp", {}, "BMP, 8 bits"),
        (COLOURS, "tif", {"compression": "jpeg"}, "TIFF with JPEG"),
        (COLOURS, "webp", {}, "WebP"),
        (COLOURS, "jpg", {"quality": 90}, "JPEG 4:2:0, quality 90"),
        (COLOURS, "jpg", {"quality": 50, "subsampling": "4:4:4"}, "JPEG 4:4:4, quality 50"),
        (COLOURS, "jpg", {"quality": 72, "subsampling": "4:2:2"}, "JPEG 4:2:2, quality 70"),
        (COLOURS.convert("L"), "jpg", {"quality": 30}, "JPEG grey, quality 30"),
    ],
)
def test_a_files_form_is_what_it_was_saved_as(image, suffix, options, form, tmp_path: Path):
    image.save(tmp_path / f"part.{suffix}", **options)
    assert read_with(tmp_path / f"part.{suffix}", form_of) == form


def test_a_capture_says_how_its_frame_came(tmp_path: Path):
    text = PngImagePlugin.PngInfo()
    text.add_text(FORM_KEY, "camera MJPG")
    COLOURS.save(tmp_path / "part.png", pnginfo=text)
    assert read_with(tmp_path / "part.png", form_of) == "camera MJPG"


def test_lossless_formats_of_one_depth_are_one_form():
    assert is_known("BMP, 8 bits", {"PNG, 8 bits"}) and not is_known("PNG, 8 bits", {"PNG, 16 bits"})
    assert not is_known("JPEG 4:2:0, quality 90", {"PNG, 8 bits", "JPEG 4:2:0, quality 80"})


def test_training_records_the_forms_of_its_images(tmp_path: Path):
    for index in range(3):
        COLOURS.save(tmp_path / f"{index}.png")
    COLOURS.save(tmp_path / "3.jpg", quality=90)
    facts = facts_of(sorted(tmp_path.iterdir()), PLAIN)
    assert facts.forms == {"PNG, 8 bits": 3, "JPEG 4:2:0, quality 90": 1}
    assert describe(facts.forms) == "PNG, 8 bits (3), JPEG 4:2:0, quality 90 (1)"
    again = {"count": facts.count, "ranges": facts.ranges, "forms": facts.forms}
    assert ImageFacts.from_json(again) == facts
    assert ImageFacts.from_json({**again, "forms": {}}).forms == {}  # of an earlier release


@pytest.mark.parametrize("forms", [["PNG"], {"PNG": 0}, {"PNG": "3"}, {"P\nG": 3}, {3: 3}])
def test_forms_that_are_none_are_refused(forms):
    facts = ImageFacts.of([np.asarray(COLOURS)])
    with pytest.raises(ValueError, match="forms must be numbers of images by form"):
        ImageFacts.from_json({"count": facts.count, "ranges": facts.ranges, "forms": forms})
