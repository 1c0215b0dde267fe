"""AU-sPRO of a set laid out as MVTec LOCO, against a loop over every cut and defect."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.images.labelled import labelled_images, read_masks
from export.images.saturation import read_defects, read_saturations
from runtime.common.errors import UserError
from train.judging.judged_set import JudgedSet
from train.judging.metrics import evaluate_judged
from train.judging.saturated import au_spro, saturating_weights

SIZE = (12, 16)
CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 10, "relative_saturation": False},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 1.0, "relative_saturation": True},
    {"defect_name": "half", "pixel_value": 253, "saturation_threshold": 0.5, "relative_saturation": True},
]
# of each image's defects: grey level and (top, left, height, width); two of them overlap
DEFECTS = {
    "logical_anomalies/000": [(255, (1, 1, 6, 6)), (253, (4, 4, 5, 7))],
    "logical_anomalies/001": [(255, (0, 0, 2, 2))],
    "structural_anomalies/000": [(254, (3, 8, 2, 3))],
}


def loco(root: Path, config: object = CONFIG) -> Path:
    for name in ("good/000", "good/001", *DEFECTS):
        path = root / "test" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(path)
    for name, defects in DEFECTS.items():
        for number, (level, (top, left, height, width)) in enumerate(defects):
            marked = np.zeros(SIZE, np.uint8)
            marked[top : top + height, left : left + width] = level
            path = root / "ground_truth" / name / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(marked).save(path)
    if config is not None:
        (root / "defects_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return root


def judged_of(root: Path, levels: int | None = None, size: tuple[int, int] = SIZE) -> JudgedSet:
    images = labelled_images(root)
    maps = np.random.default_rng(4).random((len(images), *size))
    maps = (np.floor(maps * levels) if levels else maps).astype(np.float32)
    return JudgedSet(images, maps, maps.max(axis=(1, 2)), read_masks(images, size))


def naive(judged: JudgedSet, limit: float) -> float:
    """Return the mean over both types of the area under the mean of min(found / saturation, 1), cut by cut."""
    areas = []
    for kind in ("logical_anomalies", "structural_anomalies"):
        chosen = [i for i, image in enumerate(judged.images) if image.defect in ("good", kind)]
        normal = np.concatenate([judged.maps[i][~judged.masks[i]] for i in chosen])
        points = [(0.0, 0.0)]
        for cut in sorted(set(np.concatenate([judged.maps[i].ravel() for i in chosen]).tolist()), reverse=True):
            found = []
            for i in chosen:
                name = f"{judged.images[i].defect}/{judged.images[i].path.stem}"
                for level, (top, left, height, width) in DEFECTS.get(name, []):
                    hit = (judged.maps[i][top : top + height, left : left + width] >= cut).sum()
                    area = height * width
                    saturation = {255: min(10, area), 254: area, 253: area // 2}[level]
                    found.append(min(hit / saturation, 1))
            points.append((float((normal >= cut).mean()), float(np.mean(found))))
        area = 0.0
        for (x0, y0), (x1, y1) in pairwise(points):
            if x0 < limit and x1 > x0:
                end = min(x1, limit)
                area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
        areas.append(area / limit)
    return float(np.mean(areas))


@pytest.mark.parametrize("levels", [None, 2, 7])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_au_spro_is_that_of_every_cut_and_defect(levels: int | None, limit: float, tmp_path: Path) -> None:
    judged = judged_of(loco(tmp_path), levels)
    assert au_spro(judged, limit) == pytest.approx(naive(judged, limit), abs=1e-12)  # the same few hundred terms
    if limit == 0.05:
        assert evaluate_judged(judged).au_spro == au_spro(judged, limit)


def test_a_defect_counts_whole_once_its_saturation_is_found() -> None:
    scores = np.arange(8, dtype=np.float32)
    assert saturating_weights(scores, 4).tolist() == [0, 0, 0, 0, 0.25, 0.25, 0.25, 0.25]
    assert saturating_weights(scores, 2.5).tolist() == [0, 0, 0, 0, 0, 0.2, 0.4, 0.4]


def test_an_area_in_pixels_shrinks_with_the_image(tmp_path: Path) -> None:
    image = next(i for i in labelled_images(loco(tmp_path)) if i.path.parent.name == "logical_anomalies")
    [missing, half] = read_defects(image.mask, (6, 8))
    assert missing.saturation == 2.5  # 10 pixels of 12x16
    assert half.saturation == int(half.mask.sum() * 0.5)


def test_without_saturations_there_is_no_au_spro(tmp_path: Path) -> None:
    judged = judged_of(loco(tmp_path / "plain", config=None))
    result = evaluate_judged(judged)
    assert result.au_spro is None and result.aupro_5 is not None
    assert read_saturations(tmp_path) == ()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[", "must be JSON; found Expecting"),
        ({"a": 1}, "must be a list of defects; found dict"),
        ([{"pixel_value": 255}], "entry 1 of .* must have pixel_value, saturation_threshold above 0, relative_sat"),
        ([{**CONFIG[0], "saturation_threshold": 0}], "saturation_threshold above 0"),
        ([CONFIG[0], {**CONFIG[1], "relative_saturation": 1}], "entry 2 of"),
        ([3], "entry 1 of"),
    ],
)
def test_a_configuration_that_is_wrong_is_refused(config: object, message: str, tmp_path: Path) -> None:
    loco(tmp_path, config)
    with pytest.raises(UserError, match=message):
        labelled_images(tmp_path)


def test_a_mask_of_a_level_that_is_not_named_is_refused(tmp_path: Path) -> None:
    judged = judged_of(loco(tmp_path, CONFIG[:2]))
    with pytest.raises(UserError, match=r"000/001\.png must have a grey level of defects_config\.json \(255, 254\)"):
        au_spro(judged, 0.05)
