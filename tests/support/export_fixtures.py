"""Detectors with seeded weights that are nowhere trivial, their ONNX, and what float64 says of them."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torchvision.models.mobilenetv3 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from export.fuse import fuse, probe_frames
from export.graph.onnx_files import ExportInfo, set_info
from export.model.cflow import CFlow, DetectorModule, ModelConfig
from export.model.checkpoint import Checkpoint
from export.model.encoder import ENCODERS, calibrate_batch_norm
from export.model.flow import FACTORED_AFTER
from export.model.score import freeze_constants, freeze_places
from export.to_onnx import export_detector
from runtime.engines.sidecar import Sidecar, Threshold
from tests.support.once_a_run import once_a_run
from tests.support.paths import ROOT

CALIBRATION_DATA = ROOT / "calibration_data"
# Sizes at which an encoder's export is tested; 72 and 104 are not divisible by 32: taps round up.
TEST_SIZES = {
    "resnet18": (128, 192),
    "mobilenet_v3_large": (72, 104),
    "efficientnet_lite0": (72, 104),
    "wide_resnet50_2": (96, 128),
}


@dataclass(frozen=True)
class Exported:
    """One detector: `anomaly_map` (B, H, W), `image_score` (B,) are float64 evaluations on `frames`."""

    info: ExportInfo
    frames: np.ndarray
    anomaly_map: np.ndarray
    image_score: np.ndarray
    unfused: onnx.ModelProto
    fused: onnx.ModelProto
    counts: dict[str, int]
    nodes: tuple[int, int]  # before and after the rewrites


def config_of(encoder, size, **changes):
    return ModelConfig(encoder, ENCODERS[encoder].default_taps, size, **changes)


def three_taps(encoder, blocks=8):
    """An encoder's default taps at its size for tests; the paper's blocks are 8, and fewer are exported sooner."""
    return config_of(encoder, TEST_SIZES[encoder], coupling_blocks=blocks)


def small_config(taps=("layer1", "layer2"), **changes):
    """Two fine taps of a small encoder and two blocks: exported in seconds."""
    return ModelConfig("resnet18", taps, **{"input_size": (64, 96), "coupling_blocks": 2, **changes})


def info_of(config):
    sidecar = Sidecar(
        name="cable",
        input_size=config.input_size,
        batch=1,
        encoder=config.encoder,
        encoder_weights="random",
        taps=config.taps,
        clamp=config.clamp,
        default_threshold="quantile",
        thresholds={"quantile": Threshold(0.5 * len(config.taps), "half of the range")},
        score=config.score,
    )
    return ExportInfo(
        sidecar,
        config.coupling_blocks,
        config.conditional,
        config.soft_permutation,
        one_grid=config.one_grid,
        more_blocks=(FACTORED_AFTER,) * len(config.factored),
    )


def seeded_model(config, frames):
    """A model whose scale, offset, subnets, permutations and batch norms are all far from neutral."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = CFlow(config)
    with torch.no_grad():
        _calm_encoder(model)
        _perturb_subnets(model.decoders, torch.Generator().manual_seed(2))
        normalise_states(model, torch.from_numpy(frames))
    return model.eval().requires_grad_(False)


def _calm_encoder(model):
    """Shrink residual branches and calibrate the batch norms on varied frames.

    Deep random networks amplify any float32 rounding a thousandfold, which no trained one does and no graph can help.
    """
    for module in model.encoder.modules():
        if isinstance(module, BasicBlock | Bottleneck):
            (module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight *= 0.25
        elif isinstance(module, InvertedResidual) and module.use_res_connect:
            module.block[-1][1].weight *= 0.25
    varied = probe_frames(info_of(model.config), count=7, seed=5)
    calibrate_batch_norm(model.encoder, iter([model.normalise(torch.from_numpy(varied))]))


def _perturb_subnets(decoders, generator):
    for name, parameter in decoders.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("global_scale"):
            parameter += noise  # g = 1 ± 0.1
        elif name.endswith("global_offset"):
            parameter += 0.1 * noise
        elif ".subnet." in name:
            parameter += 0.5 * parameter.std() * noise
        if ".subnet.2." in name:
            parameter *= 4  # so that the log-scales s reach some tenths


def normalise_states(model, frames):
    """Let every block leave its state at unit variance, as in a trained flow; else |logp| grows to hundreds of nats."""
    for index, (tap, decoder) in enumerate(zip(model.features(frames), model.decoders, strict=True)):
        x, condition = model.fibers(tap, index)
        for block in decoder.blocks:
            x = x[:, : block.global_scale.shape[1]]  # half of them may have been factored out
            (y,), _ = block([x], c=[] if condition is None else [condition])
            rms = y.pow(2).mean().sqrt()
            scale = block.global_scale_activation(block.global_scale) / rms
            block.global_scale.data = 2 * torch.log(torch.expm1(5 * scale))  # g = 0.1·softplus(., beta=0.5)
            block.global_offset.data /= rms
            x = y / rms


def float64_log_likelihoods(model, frames):
    """Evaluate encoder and FrEIA blocks in float64: one logp (B, h, w) per tap, in nats per dimension."""
    model.double()
    maps = []
    features = model.encoder(model.normalise(torch.from_numpy(frames)))
    for index, (tap, decoder) in enumerate(zip(features, model.decoders, strict=True)):
        if model.config.taps[index] in model.config.pooled:
            tap = torch.from_numpy(mean_of_neighbours(tap.numpy()))
        if model.config.taps[index] in model.config.halved:
            tap = tap[:, :, ::2, ::2]
        u, log_det = (part.numpy() for part in decoder(*model.fibers(tap, index)))
        logp = (log_det - 0.5 * (u**2).sum(axis=1)) / u.shape[1] - 0.5 * np.log(2 * np.pi)
        maps.append(logp.reshape(len(frames), *model.config.tap_sizes[index][1:]))
    model.float()  # exact: every value was a float32 before
    return maps


def mean_of_neighbours(features):
    """The mean of every position and those around it that there are, (B, D, h, w)."""
    height, width = features.shape[2:]
    out = np.empty_like(features)
    for i, j in np.ndindex(height, width):
        out[:, :, i, j] = features[:, :, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].mean(axis=(2, 3))
    return out


def interpolation(inputs, outputs):
    """The matrix (outputs, inputs) of linear interpolation with the corners aligned."""
    position = np.linspace(0, inputs - 1, outputs)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(inputs)))


def float64_places(log_likelihoods):
    """What a place's lowest fiftieth of good positions lies below that of the median place, (h, w) per tap, <= 0."""
    places = []
    for logp in log_likelihoods:
        images, height, width = logp.shape
        edged = np.pad(logp, ((0, 0), (1, 1), (1, 1)), mode="edge")
        low = np.empty((height, width))
        for i, j in np.ndindex(height, width):
            near = np.sort(edged[:, i : i + 3, j : j + 3], axis=None)
            low[i, j] = near[int(0.02 * near.size)]
        middle = np.sort(low, axis=None)[(low.size - 1) // 2]
        places.append(np.minimum(low - middle, 0) * images / (images + 10))
    return places


def float64_constants(log_likelihoods, score):
    """Levels and spreads (2, columns), and below them the weights of shares, by their definition, in numpy.

    A column is a tap's; the last one of "place_deviation" is the taps' sum's.
    """
    ordered = [np.sort(logp, axis=None) for logp in log_likelihoods]
    if score == "paper":
        return np.array([[values[-1] for values in ordered], [1.0] * len(ordered)])
    levels = [values[len(values) // 2] for values in ordered]
    spreads = [2 * (m - values[len(values) // 1000]) for m, values in zip(levels, ordered, strict=True)]
    if score == "deviation":
        return np.array([levels, spreads])
    weights = float64_weights(log_likelihoods, np.array([levels, spreads]), score)
    of_sum = ([0.0], [1.0]) if score == "place_deviation" else ([], [])
    return np.array([levels + of_sum[0], spreads + of_sum[1], *weights])


def float64_shares(log_likelihoods, constants, score="tap_deviation"):
    """Means of the largest 0.3, 1 and 3 % of every tap's 1 - p, (3, columns, B), each image sorted by itself."""
    maps = [
        1 - np.exp(np.minimum((logp - level) / spread, 0))
        for logp, level, spread in zip(log_likelihoods, *constants[:2, : len(log_likelihoods)], strict=True)
    ]
    if score == "place_deviation":
        maps.append(float64_map(log_likelihoods, constants, maps[0].shape[1:]) / len(maps))
    shares = []
    for share in (0.003, 0.01, 0.03):
        shares.append([])
        for anomaly in maps:
            count = max(1, round(share * anomaly[0].size))
            shares[-1].append([np.sort(image, axis=None)[-count:].mean() for image in anomaly])
    return np.array(shares)


def float64_weights(log_likelihoods, constants, score="tap_deviation"):
    """The weights (3, columns) of sum K: one over what a share strays, as if ten more images strayed as the rest."""
    shares = float64_shares(log_likelihoods, constants, score)
    images = shares.shape[2]
    relative = (shares.std(axis=2) / shares.mean(axis=2)) ** 2
    stray = shares.mean(axis=2) * np.sqrt((images * relative + 10 * max(relative.mean(), 1e-4)) / (images + 10))
    weights = 1 / np.maximum(stray, 0.1 * stray.max())
    weights[:, len(log_likelihoods) :] *= len(log_likelihoods)  # the taps' sum, where it is heard, stands for them all
    return weights * len(log_likelihoods) / weights.sum()


def float64_map(log_likelihoods, constants, size):
    """The map's definition in numpy: S = Σ_k (1 - up(exp(min((logp_k - m_k) / τ_k, 0))))."""
    total = 0.0
    for logp, level, spread in zip(log_likelihoods, *constants[:2, : len(log_likelihoods)], strict=True):
        rows, columns = (interpolation(n, side) for n, side in zip(logp.shape[1:], size, strict=True))
        total = total + 1 - rows @ np.exp(np.minimum((logp - level) / spread, 0)) @ columns.T
    return total


def float64_score(log_likelihoods, constants, anomaly_map, score):
    """The image score's definition in numpy: the map's maximum, the finest grid's largest 1 %, or by tap."""
    if score == "paper":
        return anomaly_map.max(axis=(1, 2))
    if score in ("tap_deviation", "place_deviation"):
        return (constants[2:, :, None] * float64_shares(log_likelihoods, constants, score)).sum(axis=(0, 1))
    grid = log_likelihoods[0].shape[1:]
    positions = np.sort(float64_map(log_likelihoods, constants, grid).reshape(len(anomaly_map), -1), axis=1)
    return positions[:, -max(1, round(0.01 * grid[0] * grid[1])) :].mean(axis=1)


def build(config):
    """Draw, evaluate in float64, export and fuse one detector."""
    info = info_of(config)
    frames = probe_frames(info)
    model = seeded_model(config, frames)
    log_likelihoods = float64_log_likelihoods(model, frames)
    if config.score == "place_deviation":
        for index, place in enumerate(float64_places(log_likelihoods)):
            model.places[index].copy_(torch.from_numpy(place))
            log_likelihoods[index] = log_likelihoods[index] - model.places[index].double().numpy()
    constants = float64_constants(log_likelihoods, config.score).astype(np.float32)
    wide = constants.astype(np.float64)
    anomaly_map = float64_map(log_likelihoods, wide, config.input_size)
    score = float64_score(log_likelihoods, wide, anomaly_map, config.score)
    unfused = export_detector(DetectorModule(model, torch.from_numpy(constants)))
    set_info(unfused, info)
    fused, counts = fuse(unfused, info)
    matches = {count.name: count.matches for count in counts}
    nodes = (counts[0].nodes_before, counts[-1].nodes_after)
    return Exported(info, frames, anomaly_map, score, unfused, fused, matches, nodes)


exported = once_a_run(build)


def checkpoint_of(config):
    frames = probe_frames(info_of(config))
    model = seeded_model(config, frames)
    log_likelihoods = model.log_likelihoods(torch.from_numpy(frames))
    for place, frozen in zip(model.places, freeze_places(log_likelihoods), strict=bool(model.places)):
        place.copy_(frozen)
    constants = freeze_constants(log_likelihoods, config.score, model.places)
    threshold = Threshold(min(1.0, len(config.taps) / 2), "by hand")  # below the largest score, the number of taps
    return Checkpoint(model, constants, {"quantile": threshold}, "quantile", "random, seed 1", "0" * 64)


def session_of(model):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_model(model, frames):
    """(anomaly_map, image_score) of `frames` in ONNX Runtime."""
    return session_of(model).run(None, {"frames": frames})
