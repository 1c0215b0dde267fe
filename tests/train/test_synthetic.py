"""The synthetic cables: the same seed gives the same bytes, and every mask is what the defect changed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError, run_command
from runtime.common.files import sha256_of
from train.data.cable_renderer import VISIBLE_LEVELS, draw, render
from train.data.cable_scene import DEFECTS, random_scene
from train.data.dataset import RECORD_NAME
from train.synthetic import main, write_dataset

SIZE = 96  # a strand is about one and a half pixels wide: small and quick, all shapes still there
SEEDS = range(4)


def _hashes(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): sha256_of(path) for path in sorted(root.rglob("*.png"))}


def _pair(seed: int, defect: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    good, _ = render(np.random.default_rng(seed), SIZE, None)
    flawed, mask = render(np.random.default_rng(seed), SIZE, defect)
    return good, flawed, mask


def test_a_good_cable_has_an_empty_mask_and_full_range() -> None:
    image, mask = render(np.random.default_rng(0), SIZE, None)
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    assert mask.shape == (SIZE, SIZE) and mask.dtype == np.bool_ and not mask.any()
    assert image.min() < 30 and image.max() > 150  # dark gaps and a light background: not a blank picture


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_outside_the_mask_nothing_visible_changes(defect: str, seed: int) -> None:
    good, flawed, mask = _pair(seed, defect)
    # Both carry the same noise, so what is left is the noise-free change, which may be up to VISIBLE_LEVELS outside
    # the mask, and one level of rounding.
    change = np.abs(flawed.astype(int) - good.astype(int)).max(axis=2)
    assert change[~mask].max() <= VISIBLE_LEVELS + 1


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_inside_the_mask_the_noise_free_picture_changes(defect: str, seed: int) -> None:
    streams = np.random.default_rng(seed).integers(2**63, size=3)
    scene = random_scene(np.random.default_rng(int(streams[0])))
    flawed = DEFECTS[defect](scene, np.random.default_rng(int(streams[1])))
    change = np.abs(draw(flawed.scene, SIZE) - draw(scene, SIZE)).max(axis=2) * 255
    _, mask = render(np.random.default_rng(seed), SIZE, defect)
    if not flawed.whole_cores:
        np.testing.assert_array_equal(mask, change > VISIBLE_LEVELS)
        return
    # A missing or exchanged core counts whole, though here and there a gap between strands looks as before.
    assert (change[mask] > VISIBLE_LEVELS).mean() > 0.9
    whole = np.zeros_like(mask)
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    for core in flawed.whole_cores:
        whole |= np.hypot(x - core.centre[0], y - core.centre[1]) <= core.radius
    # Half a pixel more where the rim of a core covers a pixel in part: at most its circumference.
    assert not (whole & ~mask).any()
    assert (mask & ~whole).sum() <= sum(2 * np.pi * core.radius * SIZE for core in flawed.whole_cores)


# Shares of the image: the sheath's radius is 0.425 sides, a core's 0.166 (area 0.087), an insulation 0.06 thick.
AREAS = {
    "bent_strand": (0.001, 0.03),
    "cut_insulation": (0.0004, 0.01),
    "missing_core": (0.07, 0.10),
    "poke_insulation": (0.0004, 0.005),
    "swapped_cores": (0.14, 0.20),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_has_a_plausible_area(defect: str) -> None:
    low, high = AREAS[defect]
    for seed in range(12):
        area = render(np.random.default_rng(seed), SIZE, defect)[1].mean()
        assert low < area < high, f"seed {seed}: {area}"


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_stands_out_of_the_noise(defect: str) -> None:
    good, flawed, mask = _pair(3, defect)
    # Ten levels are five deviations of the sensor noise.
    assert np.abs(flawed.astype(int) - good.astype(int)).max(axis=2)[mask].mean() > 10


def test_the_picture_does_not_depend_on_its_resolution() -> None:
    scene = random_scene(np.random.default_rng(5))
    coarse, fine = draw(scene, 64), draw(scene, 256).reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    # Strands and grain are finer than a coarse pixel, so the two agree on average only: within 4 levels of 255.
    assert np.abs(coarse - fine).mean() < 4 / 255


def test_layout_and_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(tmp_path / name, train=3, test_good=2, per_defect=1, size=SIZE, seed=4)
    hashes = _hashes(tmp_path / "a")
    assert hashes == _hashes(tmp_path / "b")
    expected = {f"train/good/{i:03d}.png" for i in range(3)} | {f"test/good/{i:03d}.png" for i in range(2)}
    expected |= {f"test/{defect}/000.png" for defect in DEFECTS}
    expected |= {f"ground_truth/{defect}/000_mask.png" for defect in DEFECTS}
    assert set(hashes) == expected
    assert set(json.loads((tmp_path / "a" / RECORD_NAME).read_text())["files"]) == expected
    images = [digest for file, digest in hashes.items() if "ground_truth" not in file]
    assert len(set(images)) == len(images)  # no picture is another one's copy
    mask = np.asarray(Image.open(tmp_path / "a" / "ground_truth" / "missing_core" / "000_mask.png"))
    assert mask.shape == (SIZE, SIZE) and set(np.unique(mask)) == {0, 255}


def test_other_counts_leave_the_shared_pictures_and_another_seed_none(tmp_path: Path) -> None:
    write_dataset(tmp_path / "few", train=1, test_good=1, per_defect=1, size=SIZE)
    write_dataset(tmp_path / "more", train=2, test_good=3, per_defect=2, size=SIZE)
    write_dataset(tmp_path / "other", train=1, test_good=1, per_defect=1, size=SIZE, seed=1)
    few, more, other = (_hashes(tmp_path / name) for name in ("few", "more", "other"))
    assert few.items() <= more.items() and len(more) > len(few)
    assert not set(few.values()) & set(other.values())


def test_an_earlier_set_is_replaced_whole_and_nothing_else_is_touched(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_dataset(root, train=3, test_good=0, per_defect=0, size=SIZE)
    (root / "notes.txt").write_text("mine")
    write_dataset(root, train=1, test_good=1, per_defect=0, size=SIZE)
    assert set(_hashes(root)) == {"train/good/000.png", "test/good/000.png"}
    assert (root / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("size", 8, "size must be 32"), ("train", -1, "train must be 0"), ("seed", -3, "seed must be 0")],
)
def test_impossible_options_are_refused(tmp_path: Path, option: str, value: int, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        write_dataset(tmp_path / "set", **{option: value})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("record", [None, "{", '{"schema": "another"}', "[]"])
def test_a_foreign_folder_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: str | None
) -> None:
    (tmp_path / "photo.png").write_bytes(b"precious")
    if record is not None:
        (tmp_path / RECORD_NAME).write_text(record)
    assert run_command(main, ["--out", str(tmp_path), "--train", "1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "choose another --out" in error
    assert (tmp_path / "photo.png").read_bytes() == b"precious"


def test_a_record_cannot_delete_outside_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(b"precious")
    root = tmp_path / "set"
    write_dataset(root, train=1, test_good=0, per_defect=0, size=SIZE)
    record = json.loads((root / RECORD_NAME).read_text())
    record["files"] += ["../outside.png", str(outside)]
    (root / RECORD_NAME).write_text(json.dumps(record))
    write_dataset(root, train=1, test_good=0, per_defect=0, size=SIZE)
    assert outside.exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--train", "1", "--test-good", "1", "--per-defect", "0", "--size", "48", "--seed", "2"]
    assert run_command(main, ["--out", str(tmp_path / "set"), *arguments]) == 0
    assert str(tmp_path / "set") in capsys.readouterr().out
    assert Image.open(tmp_path / "set" / "train" / "good" / "000.png").size == (48, 48)
