"""Where labelled images and their masks lie: the layouts of the data sets that people have.

    test/good, test/DEFECT, ground_truth/DEFECT/STEM_mask.png or STEM.png            MVTec AD, BTAD (ok, ko)
    test/good, test/DEFECT, ground_truth/DEFECT/STEM/000.png, 001.png, ...           MVTec LOCO, AutoVI
    test_public/good, test_public/bad, test_public/ground_truth/bad/STEM_mask.png    MVTec AD 2

VisA, Real-IAD and one's own lists are found by `export.images.list_places`.
Masks may have any suffix of an image, in capitals too. Folders of good images may be called good, ok or normal.
"""

from dataclasses import dataclass
from pathlib import Path

from export.images.masks import MaskParts, Saturation
from runtime.common.errors import UserError
from runtime.images.folders import list_folders, list_images

GOOD = "good"
GOOD_NAMES = frozenset({"good", "ok", "normal"})  # in small or capital letters
TESTS = ("test", "test_public")
GROUND_TRUTH = "ground_truth"
LOOKED_FOR = "ground_truth/DEFECT/STEM_mask.png, STEM.png or STEM/*.png, or any other suffix of images"


@dataclass(frozen=True)
class TestFolder:
    """A folder of test images: their `defect` (`GOOD`: none), and where their masks are, if they have any."""

    images: Path
    defect: str
    masks: Path | None


def is_good(name: str) -> bool:
    """Whether a folder of this name holds good images."""
    return name.casefold() in GOOD_NAMES


def good_folder(parent: Path) -> Path | None:
    """Return the folder of good images in `parent`, None without one. Raises `UserError` if there are several."""
    found = [folder for folder in list_folders(parent) if is_good(folder.name)]
    if len(found) > 1:
        names = ", ".join(folder.name for folder in found)
        raise UserError(f"{parent} must hold one folder of good images", names, "put them into one")
    return found[0] if found else None


def test_folders(root: Path) -> list[TestFolder]:
    """Return the folders of test images below `root`, sorted by name; none where there are none."""
    test = next((root / name for name in TESTS if (root / name).is_dir()), root / TESTS[0])
    good_folder(test)  # one alone
    grounds = [ground for ground in (root / GROUND_TRUTH, test / GROUND_TRUTH) if ground.is_dir()]
    folders = [folder for folder in list_folders(test) if folder.name != GROUND_TRUTH]
    return [_test_folder(folder, grounds) for folder in folders]


def _test_folder(folder: Path, grounds: list[Path]) -> TestFolder:
    if is_good(folder.name):
        return TestFolder(folder, GOOD, None)
    masks = next((ground / folder.name for ground in grounds if (ground / folder.name).is_dir()), None)
    return TestFolder(folder, folder.name, masks)


def mask_folders(root: Path) -> list[Path]:
    """Return the folders of defects' masks below `root`, those too that no folder of test images belongs to."""
    grounds = [root / GROUND_TRUTH, *(root / test / GROUND_TRUTH for test in TESTS), root / "Data" / "Masks"]
    return [folder for ground in grounds for folder in list_folders(ground) if not is_good(folder.name)]


def masks_in(folder: Path, saturations: tuple[Saturation, ...] = ()) -> dict[str, Path | MaskParts]:
    """Return a folder's masks by the stem of the image that each is for; those in parts have the `saturations`.

    Raises `UserError` for two masks of one image: nothing says which is right.
    """
    found: dict[str, Path | MaskParts] = {}
    for parts in list_folders(folder):
        if paths := tuple(list_images(parts)):
            found[parts.name] = MaskParts(paths, saturations)
    for path in list_images(folder):
        stem = path.stem.removesuffix("_mask")
        if stem in found:
            there = found[stem]
            name = there.name if isinstance(there, Path) else f"the folder {stem}"
            raise UserError(f"{folder} must hold one mask for each image", f"{name} and {path.name}", "remove one")
        found[stem] = path
    return found
