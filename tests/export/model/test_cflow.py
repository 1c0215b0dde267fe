"""The score against a plain loop, and that a frame's verdict is its own."""

import numpy as np
import pytest
import torch

from export.model.cflow import CFlow, DetectorModule, ModelConfig
from export.model.flow import position_code
from export.model.score import anomaly_map, freeze_constants, image_score, likelihood_ratios
from runtime.common.errors import UserError


def bilinear_corners(p: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Upsample (h, w) with align_corners=True, pixel by pixel."""
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = i * (p.shape[0] - 1) / (size[0] - 1), j * (p.shape[1] - 1) / (size[1] - 1)
            top, left = min(int(y), p.shape[0] - 2), min(int(x), p.shape[1] - 2)
            dy, dx = y - top, x - left
            block = p[top : top + 2, left : left + 2]
            out[i, j] = np.array([1 - dy, dy]) @ block @ np.array([1 - dx, dx])
    return out


def test_the_map_is_the_designs_formula() -> None:
    rng = np.random.default_rng(0)
    maps, size = [rng.normal(-1, 1, (1, 4, 6)), rng.normal(-2, 1, (1, 2, 3))], (16, 24)
    levels, spreads = [-0.5, -1.0], [0.75, 2.0]
    expected = sum(
        1 - bilinear_corners(np.exp(np.minimum((logp[0] - m) / t, 0)), size)
        for logp, m, t in zip(maps, levels, spreads, strict=True)
    )
    constants = torch.tensor([levels, spreads], dtype=torch.float64)
    ratios = likelihood_ratios([torch.from_numpy(p) for p in maps], constants)
    ours = anomaly_map(ratios, size)
    np.testing.assert_allclose(ours[0].numpy(), expected, rtol=0, atol=1e-12)  # both float64
    assert 0 <= ours.min() <= ours.max() <= 2


def test_the_image_score_is_the_mean_of_the_largest_hundredth_or_the_maximum() -> None:
    rng = np.random.default_rng(1)
    ratios = [rng.uniform(size=(2, 12, 20)), rng.uniform(size=(2, 6, 10))]
    expected = []
    for fine, coarse in zip(*ratios, strict=True):
        positions = sorted((2 - fine - bilinear_corners(coarse, (12, 20))).ravel())
        expected.append((positions[-1] + positions[-2]) / 2)  # 1 % of 240
    tensors = [torch.from_numpy(ratio) for ratio in ratios]
    maps = anomaly_map(tensors, (48, 80))
    top = image_score(tensors, maps, "deviation", torch.zeros(2, 2))
    np.testing.assert_allclose(top.numpy(), expected, rtol=0, atol=1e-12)  # both float64
    assert torch.equal(image_score(tensors, maps, "paper", torch.zeros(2, 2)), maps.amax((1, 2)))


def test_the_constants_are_those_of_good_positions() -> None:
    taps = [torch.arange(2000.0).view(2, 25, 40).flip(0), torch.full((2, 3, 4), -1.5)]
    torch.testing.assert_close(freeze_constants(taps, "paper"), torch.tensor([[1999.0, -1.5], [1.0, 1.0]]))
    # twice the way to the third lowest of two thousand; features that are all alike have the smallest spread
    torch.testing.assert_close(freeze_constants(taps, "deviation"), torch.tensor([[1000.0, -1.5], [1996.0, 1e-3]]))


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(UserError, match="score must be place_deviation or tap_deviation or deviation or paper"):
        ModelConfig("resnet18", ("layer1",), score="mean")  # type: ignore[arg-type]


def small(**changes: object) -> DetectorModule:
    config = ModelConfig("resnet18", ("layer1", "layer2"), (64, 96), coupling_blocks=2, **changes)
    return DetectorModule(CFlow(config), torch.tensor([[-1.5, -1.5], [1.0, 1.0]])).eval()


def frames(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_frames_map_depends_on_no_other_frame() -> None:
    detector, batch = small(), frames(3)
    with torch.inference_mode():
        alone, _ = detector(batch[:1])
        detector(batch[1:])
        again, score = detector(batch[:1])
        together, scores = detector(batch.flip(0))
    assert torch.equal(alone, again)
    # another batch may sum in another order: float32 rounding
    torch.testing.assert_close(together[-1:], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(scores[-1:], score, rtol=0, atol=1e-6)


def test_every_variant_gives_the_contracts_shapes() -> None:
    for changes in ({"conditional": False}, {"soft_permutation": False}, {"clamp": "tanh(a/c)"}):
        changes = {**changes, "score": "paper"}
        with torch.inference_mode():
            maps, scores = small(**changes)(frames(2))
        assert (maps.shape, scores.shape) == ((2, 64, 96), (2,))
        assert torch.equal(scores, maps.amax((1, 2)))
        assert torch.isfinite(maps).all()


def test_the_same_seed_builds_the_same_model_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = small().model, small().model
    state = again.decoders.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in first.decoders.state_dict().items())
    torch.manual_seed(5)
    assert torch.equal(before, torch.get_rng_state())


def test_fibers_keep_each_positions_features_and_condition_together() -> None:
    model = small().model
    features = torch.randn(2, 128, 8, 12, generator=torch.Generator().manual_seed(0))
    fibers, condition = model.fibers(features, 1)
    code = position_code(8, 12)
    for frame, row, column in np.ndindex(2, 8, 12):
        position = (frame * 8 + row) * 12 + column
        assert torch.equal(fibers[position], features[frame, :, row, column])
        assert torch.equal(condition[position], code[row, column])
    assert small(conditional=False).model.fibers(features, 1)[1] is None


def test_frames_are_normalised_as_imagenets() -> None:
    pixels = frames(1)
    expected = (pixels.double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    # float32: values up to 2.6 after one product and one difference
    torch.testing.assert_close(
        small().model.normalise(pixels).double().permute(0, 2, 3, 1), expected, rtol=0, atol=2e-6
    )


def test_training_mode_leaves_the_encoder_frozen() -> None:
    model = small().model.train()
    assert model.decoders.training and not any(module.training for module in model.encoder.modules())
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
