"""PaDiM and SPADE against their definitions in float64: scipy's distance and filter, scikit-learn's neighbours."""

import copy
import functools
import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from export.bench.baselines.common import CentreCrop, gaussian_matrix, random_encoder
from export.bench.baselines.padim import Padim, PadimConfig, random_padim
from export.bench.baselines.spade import Spade, SpadeConfig, random_spade
from export.model.cflow import IMAGENET_MEAN, IMAGENET_STD
from export.model.encoder import calibrate_batch_norm
from runtime.common.errors import UserError
from tests.support.paths import ROOT

ENCODER = "resnet18"
SIZES = [(64, 64), (64, 112)]  # crops of 56 x 56 and 56 x 98: taps of 14, 7, 4 and 25, 13, 7 columns, no whole factors
NEIGHBOURS = 4
TABLE = json.loads((ROOT / "runtime" / "report" / "table6.json").read_text())
SIZE_MB = {row["model"]: row["size_mb"] for row in TABLE["rows"]}
NO_CROP = (293, 293)  # frames whose crop is 256 x 256: on STC the papers resize to that and do not crop


def good_frames(count, size, seed=0):
    """The same smooth picture, each time a little brighter or darker and with other noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    picture = np.stack([128 + 60 * np.sin((x + shift * y) / 6) for shift in (0, 1, 2)], axis=-1)
    frames = picture * rng.normal(1, 0.1, (count, 1, 1, 1)) + rng.normal(0, 6, (count, *size, 3))
    return torch.from_numpy(frames.clip(0, 255).astype(np.uint8))


@functools.cache
def encoder_of(config):
    """A seeded encoder whose features have the size of trained ones on the good frames."""
    encoder = random_encoder(config, seed=3)
    calibrate_batch_norm(encoder, iter([CentreCrop(config)(good_frames(13, config.size))]))
    return encoder


@functools.cache
def fitted(method, size):
    """A baseline fitted on 13 good frames, of which the last batch has three."""
    frames = good_frames(13, size)
    if method is Spade:
        return Spade.fit(ENCODER, encoder_of(SpadeConfig(ENCODER, size)), frames, NEIGHBOURS, batch=5)
    return Padim.fit(ENCODER, encoder_of(PadimConfig.draw(ENCODER, size)), frames, batch=5)


def float64_taps(model, frames):
    """Crop and normalise in numpy, run the encoder in float64: one (B, h, w, D) per tap."""
    height, width = (side * 7 // 8 for side in frames.shape[1:3])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    crop = frames.numpy()[:, top : top + height, left : left + width] / 255
    images = (crop - IMAGENET_MEAN) / IMAGENET_STD
    encoder = copy.deepcopy(model.encoder).double()
    return [tap.permute(0, 2, 3, 1).numpy() for tap in encoder(torch.from_numpy(images.transpose(0, 3, 1, 2)))]


def bilinear(grid, size):
    """Sample a (h, w) grid of areas at the centres of `size` pixels; outside the outermost centres it is constant."""

    def matrix(inputs, outputs):
        centres = ((np.arange(outputs) + 0.5) * inputs / outputs - 0.5).clip(0, inputs - 1)
        return np.maximum(0, 1 - np.abs(centres[:, None] - np.arange(inputs)))

    return matrix(grid.shape[0], size[0]) @ grid @ matrix(grid.shape[1], size[1]).T


def on_frame(crop_map, size):
    """Put the crop's map in the middle of a frame of zeros."""
    whole = np.zeros(size)
    top, left = ((side - inner) // 2 for side, inner in zip(size, crop_map.shape, strict=True))
    whole[top : top + crop_map.shape[0], left : left + crop_map.shape[1]] = crop_map
    return whole


def float64_padim(model, good, frames):
    """PaDiM from the good frames to the maps, position by position."""
    channels = list(model.config.channels)
    crop = model.config.crop

    def embeddings(pictures):
        taps = float64_taps(model, pictures)
        height, width = taps[0].shape[1:3]
        rows, columns = np.arange(height), np.arange(width)
        near = [tap[:, rows * tap.shape[1] // height][:, :, columns * tap.shape[2] // width] for tap in taps]
        return np.concatenate(near, axis=-1)[..., channels]

    fitted_on, judged = embeddings(good), embeddings(frames)
    grids = np.empty(judged.shape[:3])
    for y, x in np.ndindex(grids.shape[1:]):
        mean = fitted_on[:, y, x].mean(axis=0)
        inverse = np.linalg.inv(np.cov(fitted_on[:, y, x], rowvar=False) + 0.01 * np.eye(len(channels)))
        grids[:, y, x] = [mahalanobis(embedding, mean, inverse) for embedding in judged[:, y, x]]
    maps = [gaussian_filter(bilinear(grid, crop), sigma=4) for grid in grids]
    return np.stack([on_frame(crop_map, model.config.size) for crop_map in maps]), [m.max() for m in maps]


def float64_spade(model, good, frames):
    """SPADE from the good frames to the maps, with scikit-learn's searches."""
    *gallery, last = float64_taps(model, good)
    *scales, judged = float64_taps(model, frames)
    images = NearestNeighbors(n_neighbors=model.config.neighbours, algorithm="brute").fit(last.mean(axis=(1, 2)))
    distances, nearest = images.kneighbors(judged.mean(axis=(1, 2)))
    maps = []
    for index, chosen in enumerate(nearest):
        total = 0
        for good_tap, tap in zip(gallery, scales, strict=True):
            search = NearestNeighbors(n_neighbors=1, algorithm="kd_tree")
            search.fit(good_tap[chosen].reshape(-1, tap.shape[-1]))
            grid = search.kneighbors(tap[index].reshape(-1, tap.shape[-1]))[0].reshape(tap.shape[1:3])
            total = total + bilinear(grid, model.config.crop) / 3
        maps.append(on_frame(gaussian_filter(total, sigma=4), model.config.size))
    return np.stack(maps), distances.mean(axis=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("method", "reference"), [(Padim, float64_padim), (Spade, float64_spade)])
def test_maps_and_scores_equal_the_definition_in_float64(method, reference, size):
    model, frames = fitted(method, size), good_frames(2, size, seed=1)
    frames[1, 20:30, 20:30] = 0
    maps, scores = model(frames)
    assert maps.dtype == scores.dtype == torch.float32
    expected_maps, expected_scores = reference(model, good_frames(13, size), frames)
    # float32 features are off by some 2e-6 of their size. PaDiM weighs that by inverse covariances whose largest
    # eigenvalue is 1/0.01; SPADE subtracts squares a few hundred times the distance's. Either makes it 1e-5.
    np.testing.assert_allclose(maps.numpy(), expected_maps, rtol=5e-5)
    np.testing.assert_allclose(scores.numpy(), expected_scores, rtol=5e-5)


@pytest.mark.parametrize("side", [5, 40, 224])  # the filter reaches 16 pixels: further than the smallest image
def test_the_filter_is_scipys(side):
    image = np.random.default_rng(side).random((side, side + 3))
    ours = gaussian_matrix(side).double().numpy() @ image @ gaussian_matrix(side + 3).double().numpy().T
    np.testing.assert_allclose(ours, gaussian_filter(image, sigma=4), rtol=1e-6)  # weights rounded to float32


@pytest.mark.parametrize("method", [Padim, Spade])
def test_a_frame_is_judged_alike_alone_and_in_a_batch(method):
    model, frames = fitted(method, SIZES[0]), good_frames(2, SIZES[0], seed=2)
    frames[1, 20:30, 20:30] = 255
    alone = [model(frame.unsqueeze(0)) for frame in frames]
    maps, scores = model(frames)
    # other sizes of product add in another order: float32's rounding, weighed as against float64
    torch.testing.assert_close(maps, torch.cat([m for m, _ in alone]), rtol=5e-5, atol=0)
    torch.testing.assert_close(scores, torch.cat([s for _, s in alone]), rtol=5e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 7, 195])
def test_the_search_in_chunks_finds_the_same(rows):
    model, frames = copy.copy(fitted(Spade, SIZES[0])), good_frames(2, SIZES[0], seed=2)
    whole = model(frames)
    model.chunk_bytes = rows * 4 * 14 * 14  # of the finest scale's products
    for part, expected in zip(model(frames), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=5e-5, atol=0)  # products of other sizes, as above


class _Allocations(TorchDispatchMode):
    """Keeps the bytes of the largest tensor that an operation allocated."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(output, torch.Tensor) and output.untyped_storage().data_ptr() not in known:
            self.largest = max(self.largest, output.nbytes)
        return output


def test_inference_copies_no_statistics():
    padim, spade = fitted(Padim, SIZES[0]), copy.copy(fitted(Spade, SIZES[0]))
    spade.chunk_bytes = 20000
    pixels = 3 * 4 * 56 * 56  # three scales' maps of the crop, SPADE's largest tensor; PaDiM's embeddings: twice that
    pairs = 4 * (14 * 14) ** 2  # the finest scale's products with one image, all at once: four times that
    for model, limit in ((padim, padim.inverse_covariance.nbytes / 10), (spade, pairs / 3)):
        taps = model.features(model.crop(good_frames(1, SIZES[0])))
        with _Allocations() as allocations:
            model.judge(taps)
        assert pixels <= allocations.largest < limit


@pytest.mark.parametrize("method", [Padim, Spade])
def test_a_painted_defect_raises_the_map_there(method):
    model, frames = fitted(method, SIZES[0]), good_frames(2, SIZES[0], seed=4)
    frames[1, 36:46, 16:26] = torch.tensor([230, 30, 30], dtype=torch.uint8)
    (good, flawed), scores = model(frames)
    y, x = divmod(int(flawed.argmax()), flawed.shape[1])
    assert 32 <= y < 50 and 12 <= x < 30  # within a position of layer1, 4 pixels, of the defect
    assert flawed[36:46, 16:26].min() > 1.5 * good[36:46, 16:26].max()
    assert scores[1] > 1.2 * scores[0]


@pytest.mark.parametrize("method", [Padim, Spade])
def test_the_map_is_zero_outside_the_crop_and_only_there(method):
    maps, _ = fitted(method, SIZES[1])(good_frames(1, SIZES[1]))
    inside = torch.zeros(SIZES[1], dtype=torch.bool)
    inside[4:60, 7:105] = True
    assert ((maps[0] > 0) == inside).all()


def test_padims_score_is_the_largest_of_its_map():
    maps, scores = fitted(Padim, SIZES[0])(good_frames(2, SIZES[0]))
    assert torch.equal(scores, maps.amax(dim=(1, 2)))


@pytest.mark.parametrize("method", [Padim, Spade])
def test_another_engine_can_run_the_encoder(method):
    model, frames = copy.copy(fitted(method, SIZES[0])), good_frames(2, SIZES[0], seed=5)
    expected = model(frames)
    taps = [tap.contiguous() for tap in model.encoder(model.crop(frames))]
    seen = []
    model.features = lambda images: seen.append(images.shape) or taps
    assert all(map(torch.equal, model(frames), expected))
    assert seen == [(2, 3, 56, 56)]


@pytest.mark.parametrize("method", [Padim, Spade])
def test_what_is_loaded_gives_the_same_bits(method, tmp_path):
    model, frames = fitted(method, SIZES[0]), good_frames(2, SIZES[0], seed=6)
    path = tmp_path / "baseline.pt"
    model.save(path)
    loaded = method.load(path)
    assert loaded.config == model.config
    assert all(map(torch.equal, loaded(frames), model(frames)))
    loaded.save(path)  # over the file that its own tensors are mapped from
    assert all(map(torch.equal, method.load(path)(frames), model(frames)))
    assert [file.name for file in tmp_path.iterdir()] == ["baseline.pt"]


def test_other_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "other.pt"
    with pytest.raises(UserError, match=r"a baseline must stand at .*no such file; fit one"):
        Padim.load(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match=r"must be a file of format cflow-edge/padim/1; found \w+; fit it again$"):
        Padim.load(path)
    fitted(Spade, SIZES[0]).save(path)
    with pytest.raises(UserError, match=r"cflow-edge/padim/1; found cflow-edge/spade/1; fit it again$"):
        Padim.load(path)
    content = torch.load(path)
    content["statistics"]["layer2"] = content["statistics"]["layer2"][:, :5].clone()
    torch.save(content, path)
    with pytest.raises(UserError, match=r"every part of cflow-edge/spade/1; found ValueError: layer2 must be .*$"):
        Spade.load(path)


@pytest.mark.parametrize("method", [Padim, Spade])
@pytest.mark.parametrize("frames", [torch.zeros(1, 64, 65, 3, dtype=torch.uint8), torch.zeros(1, 64, 64, 3)])
def test_other_frames_are_refused_in_one_line(method, frames):
    expected = r"^frames must be uint8 of shape \(B, 64, 64, 3\); found \w+ of shape \(1, 64, 6\d, 3\); resize them.*$"
    with pytest.raises(UserError, match=expected):
        fitted(method, SIZES[0])(frames)


def test_what_cannot_be_fitted_is_refused_in_one_line():
    encoder, frames = encoder_of(SpadeConfig(ENCODER, SIZES[0])), good_frames(3, SIZES[0])
    with pytest.raises(UserError, match=r"50 neighbours needs at least as many good images.*found 3; give more"):
        Spade.fit(ENCODER, encoder, frames)
    with pytest.raises(UserError, match="at least 2 good frames; found 1; give more"):
        Padim.fit(ENCODER, encoder, frames[:1])
    with pytest.raises(UserError, match="dimensions between 1 and 448; found 449"):
        PadimConfig.draw(ENCODER, SIZES[0], 449)
    with pytest.raises(UserError, match="dimensions between 1 and 448; found None"):
        PadimConfig.draw("resnet34", SIZES[0])  # the paper has no number for it
    with pytest.raises(UserError, match="ascending and below 448; found 2 from"):
        PadimConfig(ENCODER, SIZES[0], (447, 448))
    with pytest.raises(UserError, match="taps of mobilenet_v3_large must be among"):
        SpadeConfig("mobilenet_v3_large", SIZES[0])
    with pytest.raises(UserError, match="sides of at least 2 pixels; found 64x1"):
        SpadeConfig(ENCODER, (64, 1))


@pytest.mark.parametrize(
    ("config", "encoder_mb", "row", "data"),
    [
        (PadimConfig.draw(ENCODER, (256, 256)), 45, "PaDiM-R18", "mvtec"),
        (PadimConfig.draw(ENCODER, NO_CROP), 45, "PaDiM-R18", "stc"),
        (PadimConfig.draw("wide_resnet50_2", (256, 256)), 0, "PaDiM-WRN50", "mvtec"),
        (PadimConfig.draw("wide_resnet50_2", NO_CROP), 268, "PaDiM-WRN50", "stc"),
        (SpadeConfig("wide_resnet50_2", (256, 256)), 0, "SPADE-WRN50", "mvtec"),
        (SpadeConfig("wide_resnet50_2", NO_CROP, images=5000), 0, "SPADE-WRN50", "stc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_sizes_are_the_papers(config, encoder_mb, row, data):
    # The table rounds to two digits, at most 3 % here. It counts the encoder in three of its PaDiM figures (45 and
    # 268 MB are its own rows "encoder only"), but not in the fourth, nor for SPADE. PaDiM's authors keep 5000 images
    # of STC.
    assert config.stored_bytes / 1e6 + encoder_mb == pytest.approx(SIZE_MB[row][data], rel=0.03)


@pytest.mark.parametrize("method", [Padim, Spade])
def test_the_stored_bytes_are_those_of_the_statistics(method):
    model = fitted(method, SIZES[1])
    tensors = [model.get_buffer(name) for name in model.config.shapes]
    assert model.stored_bytes() == sum(tensor.nbytes for tensor in tensors)
    kept = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert kept == model.stored_bytes() + sum(tensor.nbytes for tensor in model.encoder.state_dict().values())


@pytest.mark.parametrize("method", [Padim, Spade])
def test_flops_are_those_that_torch_counts(method):
    model, frames = fitted(method, SIZES[1]), good_frames(1, SIZES[1])
    taps = model.features(model.crop(frames))
    with FlopCounterMode(display=False) as counter:
        model.judge(taps)
    # torch counts no cdist (13 images of 512 pooled features) and no sum of products (14 x 25 positions of 100)
    uncounted = 2 * 13 * 512 if method is Spade else 2 * 14 * 25 * 100
    assert model.flops(SIZES[1]) == counter.get_total_flops() + uncounted
    assert fitted(method, SIZES[0]).flops(SIZES[1]) == model.flops(SIZES[1])


def test_random_statistics_are_seeded_and_possible():
    padim = random_padim(ENCODER, (32, 64), seed=1)
    inverse = padim.inverse_covariance
    assert torch.equal(inverse, inverse.mT) and torch.linalg.eigvalsh(inverse).min() > 0.4
    spade = random_spade(ENCODER, (32, 64), seed=1, images=6, neighbours=3)
    frames = good_frames(1, (32, 64))
    for model, again, other in (
        (padim, random_padim(ENCODER, (32, 64), 1), random_padim(ENCODER, (32, 64), 2)),
        (spade, random_spade(ENCODER, (32, 64), 1, 6, 3), random_spade(ENCODER, (32, 64), 2, 6, 3)),
    ):
        maps, scores = model(frames)
        assert maps.isfinite().all() and scores.isfinite().all()
        assert torch.equal(again(frames)[0], maps)
        assert not torch.equal(other(frames)[0], maps)


def test_a_frame_reads_all_of_padim_and_of_spade_what_is_near():
    padim = PadimConfig.draw("resnet18", (256, 256))
    assert padim.bytes_read == padim.stored_bytes
    spade = SpadeConfig("wide_resnet50_2", (256, 256), images=242, neighbours=50)
    positions = [(56, 256), (28, 512), (14, 1024)]  # of the 224 that are seen: sides and channels by scale
    assert spade.bytes_read == 4 * (242 * 2048 + 50 * sum(side * side * (channels + 1) for side, channels in positions))
