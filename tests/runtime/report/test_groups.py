"""Groups measured in turn, with workers whose times are chosen."""

from pathlib import Path
from typing import ClassVar

import pytest

from runtime.common.errors import UserError
from runtime.report.groups import (
    GroupVariant,
    anchor_of,
    by_group,
    measure_group,
    measure_threads,
    sets_of,
    variants_of,
)
from runtime.report.models import ModelEntry, ModelFile
from runtime.report.ratios import full_to_encoder, times_anchor
from runtime.report.schema import Work
from runtime.report.worker import Subject
from runtime.report.workers import Worker

TIMES_MS = {"encoder": 20.0, "network": 40.0, "whole": 50.0, "eager": 200.0, "padim": 100.0, "int8": 10.0}
BASE = Subject("", {}, (0, 0))


def _entry(
    kind: str, network: str | None = None, verdict: str | None = None, precision: str = "fp32", **changes
) -> ModelEntry:
    def file(name: str | None) -> ModelFile | None:
        return None if name is None else ModelFile("graph", Path(name))

    values = {"encoder": "resnet18", "input_size": (256, 256), "work": Work(1e9, 1e6, 1e5), **changes}
    return ModelEntry(
        kind, precision=precision, size_bytes=8_000_000, network=file(network), verdict=file(verdict), **values
    )


ENTRIES = [
    _entry("eager", "eager", "eager "),
    _entry("encoder", "encoder"),
    _entry("cflow", "network", "whole"),
    _entry("cflow", "int8", "int8 ", precision="int8"),
    _entry("padim", None, "padim"),
]


class Chosen(Worker):
    """A worker without a process: every run takes what its file's name says, slower from round to round."""

    running: ClassVar[set[str]] = set()
    together: ClassVar[list[frozenset[str]]] = []

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.name = next(iter(subject.paths.values())).strip()
        if self.name == "broken":
            raise UserError("broken.onnx must run", "an end")
        self.device, self.engine, self.max_batch = "a device", "an engine", 8
        self.first_verdict_s, self.memory_mb = 0.25, 100.0
        self.device_memory_mb, self.kernels = (60.0, 41) if self.name.endswith("plan") else (None, None)
        self.runs = 0
        self.title = self.name if subject.precision == "float32" else f"{self.name} bf16"
        Chosen.running.add(self.title)
        Chosen.together.append(frozenset(Chosen.running))

    def run(self, path: str, batch: int = 1, warm: int = 1, count: int = 1) -> list[dict[str, float]]:
        self.runs += 1
        ms = TIMES_MS[self.name] * batch * (self.subject.threads or 1) ** -1 * (1 + self.runs / 100)
        ms /= 2 if self.subject.precision == "bfloat16" else 1
        return [{path: ms, "execute": ms / 2}] * count

    def close(self) -> None:
        Chosen.running.discard(self.title)


@pytest.fixture(autouse=True)
def _nothing_open():
    Chosen.running, Chosen.together = set(), []
    yield
    assert not Chosen.running  # whatever happened, every process was ended


def test_precisions_that_are_asked_for_and_what_has_only_one() -> None:
    kinds = [(v.entry.kind, v.precision) for v in variants_of(ENTRIES, ("fp32", "bf16"))]
    assert kinds == [
        ("eager", "fp32"),
        ("encoder", "fp32"),
        ("encoder", "bf16"),
        ("cflow", "fp32"),
        ("cflow", "bf16"),
        ("padim", "fp32"),
    ]
    assert ("cflow", "int8") in [(v.entry.kind, v.precision) for v in variants_of(ENTRIES, ("fp32", "int8"))]
    named = [_entry("engine", None, "whole", name="a.onnx"), _entry("engine", None, "int8", precision="int8")]
    assert [v.precision for v in variants_of(named, ("fp32", "bf16"))] == ["fp32", "bf16", "int8"]


def test_the_anchor_is_the_exact_detector_else_the_first() -> None:
    group = variants_of(ENTRIES, ("fp32", "bf16", "int8"))
    assert anchor_of(group) == GroupVariant(ENTRIES[2], "fp32")
    assert anchor_of(variants_of([ENTRIES[4], ENTRIES[0]], ("fp32",))).entry.kind == "padim"
    sets = [[(v.entry.kind, v.precision) for v in some] for some in sets_of(group)]
    assert [("padim", "fp32")] in sets and all(("cflow", "fp32") not in some for some in sets)
    other = _entry("cflow", "network", "whole", input_size=(512, 512))
    assert [len(some) for some in by_group(variants_of([*ENTRIES, other], ("fp32",)))] == [4, 1]


def test_every_row_has_rounds_in_common_with_the_anchor_and_ratios_are_those_of_its_rounds() -> None:
    group = variants_of(ENTRIES, ("fp32", "bf16", "int8"))
    outcome = measure_group(group, BASE, 600.0, 5, (), Chosen)
    rows = {(row.kind, row.precision): row for row in outcome.rows}
    assert [row.kind for row in outcome.rows][:2] == ["encoder", "encoder"] and not outcome.left_out
    anchor = rows["cflow", "fp32"]
    assert len(anchor.verdict.rounds_ms) == 20  # five in each of four sets
    assert {len(t.rounds_ms) for row in outcome.rows for t in (row.network, row.verdict) if t} == {20}
    # the anchor grows slower all along, the others only while they are open: ratios of medians would be off by it
    assert times_anchor(rows["eager", "fp32"], anchor)[0] == pytest.approx(50 / 200, rel=0.02)
    assert full_to_encoder(anchor, outcome.rows)[0] == pytest.approx(20 / 40, rel=0.02)
    assert full_to_encoder(rows["cflow", "bf16"], outcome.rows)[0] == pytest.approx(20 / 40, rel=0.02)
    assert rows["cflow", "bf16"].work.operands == "bfloat16" and anchor.work.operands == "float32"
    padim = rows["padim", "fp32"]
    assert [bool(samples) for samples in padim.verdict.rounds_ms] == [False] * 15 + [True] * 5
    assert (padim.paper.model, anchor.paper.model) == ("PaDiM-R18", "CFLOW-AD-R18")
    assert (anchor.first_verdict_s, anchor.memory_mb, anchor.size_mb, anchor.stages_ms["execute"] > 0) == (
        0.25,
        100,
        8,
        True,
    )


def test_not_all_of_a_group_is_open_at_once() -> None:
    measure_group(variants_of(ENTRIES, ("fp32", "bf16", "int8")), BASE, 60.0, 5, (), Chosen)
    assert not any({"padim", "eager"} <= together or {"int8", "eager"} <= together for together in Chosen.together)
    assert all("whole" in together for together in Chosen.together[1:])


def test_what_does_not_open_is_left_out_with_its_reason_and_the_rest_is_measured() -> None:
    entries = [*ENTRIES[:3], _entry("unfused", None, "broken")]
    outcome = measure_group(variants_of(entries, ("fp32",)), BASE, 60.0, 5, (), Chosen)
    assert [row.kind for row in outcome.rows] == ["encoder", "cflow", "eager"]
    assert outcome.left_out == ["CFLOW-AD-R18, unfused 256x256 fp32: broken.onnx must run; found an end"]
    no_anchor = measure_group(
        variants_of([_entry("cflow", None, "broken"), ENTRIES[1]], ("fp32",)), BASE, 60.0, 5, (), Chosen
    )
    assert no_anchor.rows == [] and "broken" in no_anchor.left_out[0]


def test_a_model_that_fails_under_way_costs_its_row_and_an_anchor_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    real, failing = Chosen.run, {"padim": 3}

    def run(self: Chosen, *arguments: object, **options: object) -> list[dict[str, float]]:
        if self.runs >= failing.get(self.name, 1000):
            raise UserError(f"{self.name} must run", "no memory")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Chosen, "run", run)
    group = variants_of(ENTRIES, ("fp32",))
    outcome = measure_group(group, BASE, 60.0, 5, (1, 2), Chosen)
    assert [row.kind for row in outcome.rows] == ["encoder", "cflow", "eager"]
    assert outcome.left_out == ["PaDiM-R18 256x256 fp32: padim must run; found no memory"] and len(outcome.sweeps) == 2
    failing["whole"] = 3
    outcome = measure_group(group, BASE, 60.0, 5, (1, 2), Chosen)
    assert outcome.rows == [] and "CFLOW-AD-R18 256x256 fp32: whole must run; found no memory" in outcome.left_out


def test_sweeps_of_batch_and_threads() -> None:
    outcome = measure_group(variants_of(ENTRIES[1:3], ("fp32",)), BASE, 60.0, 5, (1, 4, 16), Chosen)
    assert [point.timing.batch for point in outcome.sweeps] == [1, 4]  # the engine takes 8 at most
    one, four = (point.timing for point in outcome.sweeps)
    assert four.p50 == pytest.approx(4 * one.p50, rel=0.05) and four.fps == pytest.approx(one.fps, rel=0.05)
    points = measure_threads([GroupVariant(ENTRIES[2], "fp32")], BASE, (1, 2), Chosen)
    assert [point.threads for point in points] == [1, 2]
    assert points[0].timing.p50 == pytest.approx(2 * points[1].timing.p50, rel=0.05)


def test_what_has_a_file_for_batches_is_swept_with_it_in_each_precision() -> None:
    entries = [
        _entry("cflow", "network.plan", "whole.plan", swept=ModelFile("graph", Path("batch32 whole.plan"))),
        _entry(
            "cflow", "int8.plan", "int8.plan", precision="fp16", swept=ModelFile("graph", Path("batch32 int8.plan"))
        ),
        _entry("launches", None, "whole.plan", precision="fp16", work=None),
    ]
    TIMES_MS.update({"network.plan": 4.0, "whole.plan": 5.0, "int8.plan": 2.0})
    TIMES_MS.update({"batch32 whole.plan": 6.0, "batch32 int8.plan": 3.0})
    outcome = measure_group(variants_of(entries, ("fp32", "fp16")), BASE, 60.0, 5, (1, 4, 16), Chosen)
    assert not outcome.left_out and [row.kind for row in outcome.rows] == ["cflow", "cflow", "launches"]
    assert [row.kernels for row in outcome.rows] == [{"network": 41, "verdict": 41}] * 2 + [{"verdict": 41}]
    assert {row.device_memory_mb for row in outcome.rows} == {60.0}
    # batches that the file does not take are left out
    assert [(point.precision, point.timing.batch) for point in outcome.sweeps] == [
        ("fp32", 1),
        ("fp32", 4),
        ("fp16", 1),
        ("fp16", 4),
    ]
    assert all(point.kernels == 41 and point.work is not None for point in outcome.sweeps)
