"""Tiled detectors with seeded weights, the graphs of their frames, and what torch says of these."""

from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch

from export.fuse import fuse, probe_frames
from export.graph.onnx_files import ExportInfo, set_info
from export.model.cflow import CFlow, DetectorModule
from export.model.score import freeze_constants, freeze_places
from export.model.tiled import TiledDetector
from export.to_onnx import export_detector
from tests.support.export_fixtures import info_of, seeded_model
from tests.support.once_a_run import once_a_run


@dataclass(frozen=True)
class Tiled:
    """`unfused` and `fused` are networks of tiles; `anomaly_map` and `image_score` are torch's, of whole `frames`."""

    info: ExportInfo
    frames: np.ndarray
    anomaly_map: np.ndarray
    image_score: np.ndarray
    unfused: onnx.ModelProto
    fused: onnx.ModelProto
    counts: dict[str, int]


def tiled_detector(config):
    """The detector of a config with tiles, its decoders calm on tiles."""
    plain = replace(config, tiles=None)
    tiles = probe_frames(info_of(plain))
    seeded = seeded_model(plain, tiles)
    model = CFlow(config)
    model.load_state_dict(seeded.state_dict())
    model.eval().requires_grad_(False)
    likelihoods = model.log_likelihoods(torch.from_numpy(tiles))
    for place, frozen in zip(model.places, freeze_places(likelihoods), strict=bool(model.places)):
        place.copy_(frozen)
    return DetectorModule(model, freeze_constants(likelihoods, config.score, model.places))


def tiled_info(config):
    info = info_of(config)
    return replace(info, sidecar=replace(info.sidecar, input_size=config.judged_size, tiles=config.tiles))


def build_tiled(config):
    """Draw, evaluate in torch, export and fuse one tiled detector."""
    info, detector = tiled_info(config), tiled_detector(config)
    frames = probe_frames(replace(info, sidecar=replace(info.sidecar, tiles=None)))
    with torch.no_grad():
        maps, scores = TiledDetector(detector)(torch.from_numpy(frames))
    unfused = export_detector(detector)
    set_info(unfused, info)
    fused, counts = fuse(unfused, info)
    matches = {count.name: count.matches for count in counts}
    return Tiled(info, frames, maps.numpy(), scores.numpy(), unfused, fused, matches)


tiled = once_a_run(build_tiled)
