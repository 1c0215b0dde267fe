"""ShanghaiTech Campus (STC): frames of 13 surveillance scenes, labelled by frame and by pixel.

    ROOT/training/frames/CLIP/*.jpg      good frames, extracted from the videos ROOT/training/videos/CLIP.avi
    ROOT/testing/frames/CLIP/*.jpg       T frames a clip
    ROOT/testing/test_frame_mask/CLIP.npy    (T,), 1 where the frame is anomalous
    ROOT/testing/test_pixel_mask/CLIP.npy    (T, H, W), 1 where the pixel is

A clip is named SCENE_NUMBER, e.g. 01_0014. The paper trains one model a scene; a scene is opened as ROOT/SCENE.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from export.images.labelled import GOOD, LabelledImage
from export.images.masks import MaskSlice, open_array
from runtime.common.errors import UserError
from runtime.images.folders import list_folders, list_images
from train.data.dataset import Dataset

MEAN = (0.5, 0.5, 0.5)  # the reference implementation's for STC
STD = (0.225, 0.225, 0.225)
PAPER_SIZE = (256, 256)  # (height, width), the paper's Table 5
ANOMALOUS = "anomalous"
VIDEO_SUFFIXES = frozenset({".avi", ".mp4"})


def is_stc(root: Path) -> bool:
    """Whether `root` is laid out as STC is."""
    return any((root / folder).is_dir() for folder in ("training/frames", "training/videos", "testing/frames"))


def scenes(root: Path) -> tuple[str, ...]:
    """Return the scenes that have training and testing clips, sorted (the official set tests all but scene 13)."""
    training = {_scene(clip) for clip in (*_clips(root / "training/frames"), *_videos(root))}
    return tuple(sorted(training & {_scene(clip) for clip in _clips(root / "testing/frames")}))


def open_stc(root: Path, scene: str = "") -> Dataset:
    """Open one scene of STC, or all of them as one data set.

    Raises `UserError` for a scene without clips, a video whose frames are not extracted, a clip without labels,
    and labels that are not one a frame.
    """
    _check_extracted(root, scene)
    train = tuple(path for clip in _clips(root / "training/frames", scene) for path in list_images(clip))
    test = tuple(image for clip in _clips(root / "testing/frames", scene) for image in _labelled(root, clip))
    if not train and not test:
        raise UserError(
            f"{root} must hold frames{f' of scene {scene}' if scene else ''}",
            "none",
            f"the scenes are {', '.join(scenes(root)) or 'missing: extract it again'}",
        )
    return Dataset(root, train, test, MEAN, STD, PAPER_SIZE, part=scene)


def _scene(clip: Path) -> str:
    return clip.stem.split("_")[0]


def _clips(frames: Path, scene: str = "") -> list[Path]:
    """Return the clips' folders in `frames`, those of one scene if it is named."""
    folders = list_folders(frames)
    return [path for path in folders if not scene or _scene(path) == scene]


def _videos(root: Path, scene: str = "") -> list[Path]:
    folder = root / "training/videos"
    videos = sorted(path for path in folder.iterdir() if path.suffix in VIDEO_SUFFIXES) if folder.is_dir() else []
    return [path for path in videos if not scene or _scene(path) == scene]


def _check_extracted(root: Path, scene: str) -> None:
    extracted = {clip.name for clip in _clips(root / "training/frames")}
    missing = [video for video in _videos(root, scene) if video.stem not in extracted]
    if missing:
        videos = f"videos/{scene}{'_' if scene else ''}*{missing[0].suffix}"
        raise UserError(
            "every training video must stand as frames in training/frames",
            f"{len(missing)} without, {missing[0].name} first",
            f'cd {shlex.quote(str(root / "training"))} && for v in {videos}; do d=frames/$(basename "${{v%.*}}"); '
            '[ -d "$d" ] || (mkdir -p "$d" && ffmpeg -i "$v" -start_number 0 -q:v 2 "$d/%08d.jpg"); done',
        )


def _labelled(root: Path, clip: Path) -> Iterator[LabelledImage]:
    """Yield the frames of a testing clip with their labels; the masks stay in their file."""
    frames = list_images(clip)
    label_file = root / "testing/test_frame_mask" / f"{clip.name}.npy"
    labels = np.asarray(open_array(label_file, ndim=1))
    _check_length(label_file, len(labels), clip, len(frames))
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"{label_file} must hold 0 and 1 alone", f"values from {labels.min()} to {labels.max()}")
    mask_file = root / "testing/test_pixel_mask" / f"{clip.name}.npy"
    has_masks = mask_file.parent.is_dir()  # a set may come without pixel labels; a single clip may not
    if has_masks:
        _check_length(mask_file, len(open_array(mask_file, ndim=3)), clip, len(frames))
    for index, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        mask = MaskSlice(mask_file, index) if label and has_masks else None
        yield LabelledImage(frame, ANOMALOUS if label else GOOD, mask)


def _check_length(file: Path, found: int, clip: Path, frames: int) -> None:
    if found != frames:
        raise UserError(f"{file} must label the {frames} frames in {clip}", str(found), "extract the data set again")
