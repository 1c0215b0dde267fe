import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from export.images.labelled import GOOD, auroc, labelled_images, read_mask
from runtime.common.errors import UserError


@pytest.fixture
def dataset(tmp_path):
    """Two good images, two defects, one of them with a mask."""
    for folder in (GOOD, "hole", "scratch"):
        (tmp_path / "test" / folder).mkdir(parents=True)
    (tmp_path / "ground_truth" / "hole").mkdir(parents=True)
    for index, name in enumerate((f"{GOOD}/0.png", f"{GOOD}/1.png", "hole/0.png", "scratch/0.png")):
        Image.fromarray(np.full((4, 6, 3), 40 * index, np.uint8)).save(tmp_path / "test" / name)
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    Image.fromarray(mask).save(tmp_path / "ground_truth" / "hole" / "0_mask.png")
    return tmp_path


def test_images_come_with_their_class_and_mask(dataset):
    images = labelled_images(dataset)
    assert [(image.defect, image.anomalous) for image in images] == [
        (GOOD, False),
        (GOOD, False),
        ("hole", True),
        ("scratch", True),
    ]
    masks = [read_mask(image, (4, 6)) for image in images]
    assert not masks[0].any() and masks[2].sum() == 1 and masks[2][1, 2] and masks[3] is None


def test_a_folder_without_test_images_has_none(tmp_path):
    assert labelled_images(tmp_path) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 10**6])  # many ties, next to none
def test_auroc_is_scikit_learns(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random((7, 30)) < 0.2
    scores = (rng.integers(0, levels, labels.shape) + labels).astype(np.float32)
    # both count the same pairs; the order of float64 sums differs
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels.ravel(), scores.ravel()), abs=1e-12)


@pytest.mark.parametrize("labels", [[False, False], [True, True], []])
def test_auroc_of_one_class_is_an_error(labels):
    with pytest.raises(UserError, match="needs good and anomalous examples"):
        auroc(np.zeros(len(labels)), labels)
