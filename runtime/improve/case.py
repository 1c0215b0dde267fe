"""The engine in force with all that is known of its mistakes, and what a threshold or a mask would make of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.common.errors import UserError
from runtime.common.files import safe_name, write_bytes
from runtime.common.notices import escaped
from runtime.engines.sidecar import Sidecar
from runtime.images.opencv import opencv
from runtime.improve import mask, threshold
from runtime.improve.evidence import Evidence
from runtime.improve.proposal import Nothing, Proposal
from runtime.improve.rejudge import Frames, Known
from runtime.improve.staging import Stage
from runtime.improve.threshold import KnownScores


@dataclass(frozen=True, eq=False)
class Case:
    """An engine, its evidence, the marked frames and known parts as it judges them.

    `camera_size` is the (height, width) of the camera's frame, where that had to be told.
    """

    engine: Path
    sidecar: Sidecar
    evidence: Evidence
    frames: Frames
    known: Sequence[Known]
    camera_size: tuple[int, int] | None = None

    def proposals(self, stage: Stage) -> Iterator[Proposal | Nothing]:
        """Yield a threshold and a mask for each source, or why there is none; the files are in the stage yet."""
        yield self.threshold(stage)
        for source in dict.fromkeys(mark.source for mark in self.evidence.marks if mark.false_alarm):
            yield self.mask(source, stage)

    def threshold(self, stage: Stage) -> Proposal | Nothing:
        """Return a copy of the engine with a better threshold."""
        judged = [(one.result.image_score, one.part.anomalous) for one in self.known]
        good, bad = (np.array([score for score, is_bad in judged if is_bad == which]) for which in (False, True))
        chosen = threshold.choose(self.evidence, KnownScores(good, bad))
        if isinstance(chosen, str):
            return Nothing(threshold.KIND, chosen)
        then = chosen.rows[0].then
        said = f"false alarms {then.false_alarms.text()}, misses {then.misses.text()} of the log's judgements"
        try:
            files = stage.with_threshold(chosen.value, f"from {chosen.marks} marks: {said}")
        except UserError as error:
            return Nothing(threshold.KIND, str(error))
        what = f"{chosen.value:.4f} instead of {self.evidence.threshold:.4f}"
        try_it = f"add --shadow {stage.place(files[-1])} to the line's runtime.infer"
        notes = ("alarms that nobody called false count as right: mark those that are not",)
        return Proposal(threshold.KIND, what, chosen.rows, tuple(files), try_it, notes)

    def mask(self, source: str, stage: Stage) -> Proposal | Nothing:
        """Return a mask for a source."""
        found = mask.choose(self.evidence, self.frames, source, self.known, self.sidecar.score, self.camera_size)
        if isinstance(found, str):
            return Nothing(mask.KIND, found)
        several = len({mark.source for mark in self.evidence.marks}) > 1
        file = stage.folder / f"{stage.stem}-mask{'-' + safe_name(source) if several else ''}.png"
        write_bytes(file, bytes(opencv().imencode(".png", found.pixels)[1]))
        where = f"where {found.parts} of {found.of} parts that are false alarms have their highest positions"
        what = f"{found.share:.1%} of the picture of {escaped(source)} less, {where}"
        rows = tuple(row for row in (found.row, found.known) if row is not None)
        of_source = f" for {escaped(source)}" if several else ""
        beside = f"--shadow {self.engine} --shadow-mask {stage.place(file)}{of_source}"
        try_it = f"add {beside} to the line's runtime.infer; then start it with --mask instead"
        notes = ["what lies under a mask is never found again: look at it first"]
        if found.placeless:
            notes.append("of some alarms that nobody called false it is not known where they lie: look at them, too")
        return Proposal(mask.KIND, what, rows, (file,), try_it, tuple(notes))

    def text(self) -> str:
        """Return what is known, for a person."""
        evidence = self.evidence
        recipe = f", recipe {escaped(evidence.recipe)}" if evidence.recipe else ""
        judged = f"{evidence.judged} judgements since {evidence.since}"
        lines = [f"{self.engine}{recipe}, threshold {evidence.threshold:.4f}: {judged}"]
        if (stated := self.sidecar.threshold.value) != evidence.threshold:
            lines.append(f"the sidecar says {stated:.4f}: the line judged with another one, and that one counts")
        if evidence.judges_now:
            judges = escaped(evidence.judges_now)
            lines.append(f"it is not in force: {judges} has judged since; name that one by --engine to improve it")
        lines.append(f"marks that count: {evidence.false_alarms} false alarms, {evidence.missed} missed")
        for what, left_out in (
            ("marks left out", evidence.left_out),
            ("no frame to judge again", self.frames.left_out),
        ):
            if left_out:
                lines.append(f"{what}: {', '.join(f'{count} {why}' for why, count in left_out.items())}")
        if self.known:
            bad = sum(one.part.anomalous for one in self.known)
            lines.append(f"known parts (--data): {len(self.known)}, {bad} of them bad")
        return "\n".join(lines)

    def fields(self) -> dict[str, object]:
        """Return what is known, for JSON."""
        evidence = self.evidence
        return {
            "engine": str(self.engine),
            "recipe": evidence.recipe,
            "threshold": evidence.threshold,
            "sidecar_threshold": self.sidecar.threshold.value,
            "since": evidence.since,
            "judges_now": evidence.judges_now,
            "judgements": evidence.judged,
            "false_alarms": evidence.false_alarms,
            "missed": evidence.missed,
            "marks_left_out": dict(evidence.left_out),
            "frames_left_out": dict(self.frames.left_out),
            "known_parts": len(self.known),
        }
