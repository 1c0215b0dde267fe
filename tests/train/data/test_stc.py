"""ShanghaiTech Campus's layout: clips, scenes, labels by frame and by pixel, and what may be wrong with them."""

import argparse
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.model.encoder import ENCODERS
from runtime.common.errors import UserError
from train import fit_options
from train.data.open import list_classes, open_dataset, read_mask
from train.data.stc import scenes

LABELS = {"01_0014": [0, 1, 1, 0], "01_0015": [0, 0], "02_0003": [1, 0, 0]}


def frames(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (12, 8), (index, 0, 0)).save(folder / f"{index:03d}.jpg")


def masks_of(labels: list[int]) -> np.ndarray:
    masks = np.zeros((len(labels), 8, 12), np.uint8)
    for index in np.flatnonzero(labels):
        masks[index, 2 * index : 2 * index + 2, 6:] = 1  # another place in every frame
    return masks


@pytest.fixture
def stc(tmp_path: Path) -> Path:
    root = tmp_path / "shanghaitech"
    for clip in ("01_001", "01_002", "02_001", "13_001"):
        frames(root / "training/frames" / clip, 3)
    for folder in ("test_frame_mask", "test_pixel_mask"):
        (root / "testing" / folder).mkdir(parents=True)
    for clip, labels in LABELS.items():
        frames(root / "testing/frames" / clip, len(labels))
        np.save(root / "testing/test_frame_mask" / f"{clip}.npy", np.array(labels, np.int8))
        np.save(root / "testing/test_pixel_mask" / f"{clip}.npy", masks_of(labels))
    return root


def test_a_scene_has_its_own_clips_labels_and_normalisation(stc: Path) -> None:
    scene = open_dataset(stc / "01")
    assert [path.relative_to(stc).as_posix() for path in scene.train] == [
        f"training/frames/{clip}/{index:03d}.jpg" for clip in ("01_001", "01_002") for index in range(3)
    ]
    assert [int(image.anomalous) for image in scene.test] == LABELS["01_0014"] + LABELS["01_0015"]
    assert (scene.mean, scene.std, scene.paper_size) == ((0.5,) * 3, (0.225,) * 3, (256, 256))
    assert scene.origin == "shanghaitech/01"
    assert len({scene.sha256(), open_dataset(stc / "02").sha256(), open_dataset(stc).sha256()}) == 3


def test_every_anomalous_frame_has_its_own_mask(stc: Path) -> None:
    good, first, second, _ = open_dataset(stc / "01").test[:4]
    for index, image in ((1, first), (2, second)):
        np.testing.assert_array_equal(read_mask(image, (8, 12)), masks_of(LABELS["01_0014"])[index] == 1)
    half = read_mask(second, (4, 6))  # two rows and six columns of the full size
    assert half is not None
    assert half.tolist() == [[row == 2 and column >= 3 for column in range(6)] for row in range(4)]
    zeros = read_mask(good, (4, 6))
    assert zeros is not None
    assert not zeros.any()


def test_the_scenes_are_those_with_test_clips(stc: Path) -> None:
    assert scenes(stc) == ("01", "02")  # 13 has no ground truth, as in the official set
    assert list_classes(stc) == ("01", "02")
    assert len(open_dataset(stc).test) == sum(map(len, LABELS.values()))
    with pytest.raises(UserError, match="frames of scene 07; found none; the scenes are 01, 02"):
        open_dataset(stc / "07")


def test_without_pixel_labels_frames_are_still_judged(stc: Path) -> None:
    (stc / "testing/test_pixel_mask").rename(stc / "testing/elsewhere")
    image = open_dataset(stc / "01").test[1]
    assert (image.anomalous, read_mask(image, (8, 12))) == (True, None)


@pytest.mark.parametrize("kind", ["test_frame_mask", "test_pixel_mask"])
def test_labels_that_do_not_fit_their_clip_are_named(stc: Path, kind: str) -> None:
    file = stc / "testing" / kind / "01_0015.npy"
    labels = np.load(file)
    np.save(file, labels[:1])
    with pytest.raises(UserError, match=rf"{kind}/01_0015\.npy must label the 2 frames in .*/01_0015; found 1"):
        open_dataset(stc / "01")
    np.save(file, labels[..., None])
    with pytest.raises(UserError, match=rf"{kind}/01_0015\.npy must be an array of"):
        open_dataset(stc / "01")
    file.unlink()
    with pytest.raises(UserError, match=rf"{kind}/01_0015\.npy must hold labels; found no such file"):
        open_dataset(stc / "01")
    assert len(open_dataset(stc / "02").test) == 3  # another scene's labels are not looked at


def test_a_frame_label_is_zero_or_one(stc: Path) -> None:
    np.save(stc / "testing/test_frame_mask/01_0015.npy", np.array([0, 2]))
    with pytest.raises(UserError, match="must hold 0 and 1 alone; found values from 0 to 2"):
        open_dataset(stc / "01")


def test_videos_must_be_extracted_and_the_cure_is_a_command(stc: Path) -> None:
    (stc / "training/videos").mkdir()
    for clip in ("01_001", "01_003", "01_004", "02_001"):
        (stc / "training/videos" / f"{clip}.avi").touch()
    with pytest.raises(UserError, match=r"found 2 without, 01_003\.avi first; cd .*ffmpeg") as refused:
        open_dataset(stc / "01")
    assert len(open_dataset(stc / "02").train) == 3
    # The command is a shell's: run it with an ffmpeg that only notes what it was asked for.
    loop = str(refused.value).split("; ", 2)[2]
    note = 'ffmpeg() { echo "$2" "${@: -1}"; }; '
    asked = subprocess.run(["bash", "-c", note + loop], capture_output=True, text=True, check=True).stdout
    assert asked.split() == [
        name for clip in ("01_003", "01_004") for name in (f"videos/{clip}.avi", f"frames/{clip}/%08d.jpg")
    ]
    assert (stc / "training/frames/01_004").is_dir()


def test_a_scenes_normalisation_is_for_encoders_of_imagenets_pixels(stc: Path) -> None:
    parser = argparse.ArgumentParser()
    fit_options.add_training_arguments(parser)
    scene = open_dataset(stc / "01")
    resnet, lite = (
        fit_options.config_from(parser.parse_args(["--encoder", name]), scene, (64, 64))
        for name in ("resnet18", "efficientnet_lite0")
    )
    assert (resnet.mean, resnet.std) == (scene.mean, scene.std) != (ENCODERS["resnet18"].mean, ENCODERS["resnet18"].std)
    own = ENCODERS["efficientnet_lite0"]
    assert (lite.mean, lite.std) == (own.mean, own.std)
