"""A renewed detector: the old weights, trained on with the good images and with frames that were marked false alarms.

Every second marked part is held out and judged by both detectors. Missed parts are judged too, and never trained on.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from export.kept_thresholds import same_network
from export.model.checkpoint import Checkpoint, load_checkpoint
from export.to_onnx import sidecar_of
from runtime.common.errors import UserError
from runtime.detector import load
from runtime.engines.sidecar import Sidecar, Threshold
from runtime.images.preprocess import ReadOptions, read_image
from runtime.improve.marked import by_part
from runtime.improve.proposal import Mistakes, Nothing, Proposal, Row, too_few
from runtime.improve.rejudge import Frame, Frames, Known
from runtime.improve.shares import FEWEST, LUCK, by_luck
from runtime.improve.staging import Stage
from train.data.frame_tiles import open_inputs
from train.data.open import Dataset, ImageCache, split_good
from train.fit import faults_of, fit
from train.judging.scores import log_likelihood_batches
from train.judging.suspects import suspects_path
from train.loop.schedule import FAST, Recipe
from train.renewal.build_like import backend_like, build_like
from train.start_from import recipe_like

KIND = "renewed model"
FEWEST_PARTS = 2 * FEWEST  # one half is trained on, the other must be able to show that it helped
WORSE = 0.005  # nats per dimension, beyond what the last bits of a training move


@dataclass(frozen=True, eq=False)
class Renewal:
    """What a renewal needs: the engine in force, the checkpoint that it was built from, and its training data.

    `calibration` is a folder of good images, for INT8.
    """

    engine: Path
    sidecar: Sidecar
    checkpoint: Path
    dataset: Dataset
    calibration: Path
    recipe: Recipe = FAST

    def check(self) -> None:
        """Raise `UserError`, before any training, where the checkpoint is another's or nothing could be built."""
        old = load_checkpoint(self.checkpoint)
        if not same_network(self.sidecar, sidecar_of(old, self.checkpoint)):
            raise UserError(
                f"--checkpoint must be what {self.engine.name} was built from",
                f"{self.checkpoint}, another network",
                "name the .pt that it was built from",
            )
        if not self.dataset.train:
            raise UserError(f"--data {self.dataset.root} must hold good images to train on", "none")
        backend_like(self.sidecar.artefact_of(self.engine))

    def propose(self, frames: Frames, known: Sequence[Known], stage: Stage) -> Proposal | Nothing:
        """Train and build a renewed model in the `stage` and judge it; the files of a proposal are in the stage yet."""
        parts = by_part(frame.mark for frame in frames.false_alarms)
        if len(parts) < FEWEST_PARTS:
            what = "parts that are false alarms, with their frames: half of them are held out to judge it"
            return Nothing(KIND, too_few(len(parts), FEWEST_PARTS, what))
        added = tuple(mark.picture for part in parts[::2] for mark in part if mark.picture is not None)
        held_out = [_frame_of(part[-1].judgement, frames.false_alarms) for part in parts[1::2]]
        with contextlib.redirect_stdout(sys.stderr):  # what is said on the way
            try:
                new = self._trained(replace(self.dataset, added=added), stage)
                built = build_like(self.sidecar, self.sidecar.artefact_of(self.engine), _model(stage), self.calibration)
            except UserError as error:
                return Nothing(KIND, f"it could not be made: {error}")
        rows = self._rows(held_out, frames, known, stage)
        if why := not_better(rows):
            return Nothing(KIND, why)
        what = f"trained on {len(self.dataset.train)} good images and {len(added)} marked frames, threshold"
        notes = (*self.likelihoods(new), *promises(self.sidecar.threshold, built.threshold), *faults_of(new))
        prefix = f"{stage.stem}-renewed."
        made = sorted(path for path in stage.folder.iterdir() if path.name.startswith(prefix) and path.is_file())
        file = stage.place(stage.candidate("renewed"))
        sheet = stage.place(suspects_path(_model(stage)))
        notes = (*notes, f"look at {sheet} first: a bad part that was marked as a false alarm may be on it")
        try_it = f"add --shadow {file} to the line's runtime.infer"
        what = f"{what} {built.threshold.value:.4f}"
        return Proposal(KIND, what, tuple(rows), tuple(made), try_it, notes)

    def _trained(self, dataset: Dataset, stage: Stage) -> Checkpoint:
        old = load_checkpoint(self.checkpoint)
        recipe = recipe_like(self.recipe, old, set())
        return fit(dataset, old.model.config, recipe, "", _model(stage), start=old)

    def _rows(self, held_out: Sequence[Frame], frames: Frames, known: Sequence[Known], stage: Stage) -> list[Row]:
        """Judge what was held out, and what is known, with the new engine."""
        missed = [_frame_of(part[-1].judgement, frames.missed) for part in by_part(f.mark for f in frames.missed)]
        with load(stage.candidate("renewed")) as new:
            scoring = new.sidecar.scoring

            def alarm(frame: Frame) -> bool:
                assert frame.mark.picture is not None
                result = new(read_image(frame.mark.picture))
                return frames.seen(frame.mark.source).inspected(result, scoring).verdict != "good"

            now = Mistakes.of(*([one.result.verdict != "good" for one in each] for each in (held_out, missed)))
            rows = [
                Row("marked parts held out", now, Mistakes.of(*([alarm(f) for f in e] for e in (held_out, missed))))
            ]
            if known:
                told = [(one.result.verdict != "good", one.part) for one in known]
                ways = [told, [(new(read_image(part.path)).verdict != "good", part) for _, part in told]]
                sides = [
                    [[called for called, part in way if part.anomalous == bad] for bad in (False, True)] for way in ways
                ]
                rows.append(Row("known parts (--data)", Mistakes.of(*sides[0]), Mistakes.of(*sides[1])))
        return rows

    def likelihoods(self, new: Checkpoint) -> list[str]:
        """Say how likely both detectors find the good images that were held out of both trainings."""
        old = load_checkpoint(self.checkpoint)
        recipe = recipe_like(self.recipe, old, set())
        _, selection, of_threshold = split_good(self.dataset, recipe.held_out, recipe.seed)
        config = old.model.config
        images = open_inputs(config, [*selection, *of_threshold], ReadOptions(config.white))
        before, after = (_mean_log_likelihood(checkpoint, images) for checkpoint in (old, new))
        said = f"{len(images.paths)} held-out good images are {after:.3f} nats a dimension likely, {before:.3f} before"
        return [f"worse: {said}" if after < before - WORSE else said]


def _model(stage: Stage) -> Path:
    return stage.folder / f"{stage.stem}-renewed.pt"


def _frame_of(judgement: int, frames: Sequence[Frame]) -> Frame:
    return next(frame for frame in frames if frame.mark.judgement == judgement)


def not_better(rows: Sequence[Row]) -> str:
    """Say why the renewed model is no proposal; empty where it is one."""
    now, then = rows[0].now.false_alarms, rows[0].then.false_alarms
    better = now.count - then.count
    if by_luck(better, 0) > LUCK:
        shown = f"of {now.of} held-out parts it still calls {then.count} anomalous"
        return f"{shown}, and must set at least {FEWEST} right; more marks, or more good images, help it"
    for row in rows:
        if row.then.misses.count > row.now.misses.count:
            return f"it misses {row.then.misses.text()} of {row.on}, the engine in force {row.now.misses.text()}"
    return ""


def promises(old: Threshold, new: Threshold) -> list[str]:
    """Say what the thresholds promise of new good parts."""
    rates = [threshold.false_alarm_rate for threshold in (old, new)]
    said = [f"at most {rate:.2%}" if rate is not None else "nothing" for rate in rates]
    worse = rates[1] is None or (rates[0] is not None and rates[1] > rates[0])
    text = f"false alarms that its threshold promises of new good parts: {said[1]}; the one before: {said[0]}"
    return [f"worse: {text}" if worse and rates[0] is not None else text]


def _mean_log_likelihood(checkpoint: Checkpoint, images: ImageCache) -> float:
    import torch

    batches = log_likelihood_batches(checkpoint.model, images, torch.device("cpu"))
    return float(np.mean([float(tap.double().mean()) for taps in batches for tap in taps]))
