"""The report's pictures: what they show against naive computations, and that they can be read."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from scipy.stats import gaussian_kde

from runtime.common.errors import UserError
from runtime.report import paper_table
from runtime.report.charts import PICTURES, draw_charts
from runtime.report.charts.accuracy import accuracy_data
from runtime.report.charts.fps import fps_data, kept_speed
from runtime.report.charts.labels import spread
from runtime.report.charts.latency import density, latency_data
from runtime.report.charts.names import encoder_colours, row_labels, short_label
from runtime.report.charts.profile import profile_data
from runtime.report.charts.roofline import roofline_data
from runtime.report.charts.style import INK, SOFT, log_ticks, styled, written
from runtime.report.charts.sweeps import batches_data, threads_data
from runtime.report.charts.text import number, shortened, text_width
from runtime.report.paper_table import PAPER_NAMES, PaperRow
from runtime.report.schema import (
    Accuracy,
    Conditions,
    LayerGroup,
    Limits,
    Machine,
    Method,
    Profile,
    Report,
    Row,
    SweepPoint,
    Timing,
    Work,
)
from tests.support.paths import ROOT

METHOD = Method("runtime.report", "2000-01-01T00:00:00+00:00", 2, 20.0, 0, "seeded random")
MACHINE = Machine("AMD EPYC 9B45, 2 cores of a virtual machine", 2, "Linux", "", "", "", {"python": "3"})
CALM = Conditions(0.0, 0.0, None, 1.0)
EMPTY = Report(METHOD, MACHINE, CALM, None, ())
NAMES = {
    "encoder": "{} encoder only",
    "cflow": "CFLOW-AD-{}",
    "unfused": "CFLOW-AD-{}, unfused",
    "eager": "CFLOW-AD-{}, eager PyTorch",
    "padim": "PaDiM-{}",
    "spade": "SPADE-{}",
    "anomalib-cflow": "anomalib Cflow-{}",
}
# Milliseconds (network, verdict) at 256 x 256 by encoder and kind; operations, bytes of weights.
MS = {
    "resnet18": {
        "encoder": (11, None),
        "cflow": (20, 21),
        "unfused": (29, 30),
        "eager": (77, 78),
        "padim": (None, 25),
        "anomalib-cflow": (None, 31),
    },
    "wide_resnet50_2": {
        "encoder": (70, None),
        "cflow": (150, 152),
        "eager": (400, 405),
        "padim": (None, 300),
        "spade": (None, 1500),
    },
    "mobilenet_v3_large": {"encoder": (6, None), "cflow": (12, 13), "eager": (50, 52)},
}
WORK = {"resnet18": (5.4e9, 96e6), "wide_resnet50_2": (33e9, 947e6), "mobilenet_v3_large": (2.2e9, 25e6)}
SHA = {"fp32": "a" * 64, "int8": "b" * 64}


def timing(rng: np.random.Generator, p50: float, batch: int = 1, rounds: int = 10, runs: int = 12) -> Timing:
    """Runs around `p50` milliseconds with a tail to the right."""
    values = p50 * np.exp(0.02 * rng.standard_normal((rounds, runs)) + 0.03 * rng.exponential(1, (rounds, runs)) ** 2)
    return Timing(tuple(tuple(row) for row in values.tolist()), batch)


def paper_of(kind: str, encoder: str, side: int) -> PaperRow | None:
    prefix = {"encoder": PAPER_NAMES[encoder], "padim": "PaDiM", "spade": "SPADE"}.get(kind, "CFLOW-AD")
    return next((row for row in paper_table.rows_for(encoder, (side, side)) if row.model.startswith(prefix)), None)


def row_of(
    rng: np.random.Generator,
    encoder: str,
    kind: str,
    side: int,
    precision: str = "fp32",
    speed: float = 1.0,
    engine: str = "",
) -> Row:
    scale = (side / 256) ** 2 / speed
    network, verdict = MS[encoder][kind]
    flops, weights = WORK[encoder]
    share = {"encoder": 0.58, "padim": 0.65, "spade": 0.6}.get(kind, 1.0)
    operands = {"int8": "int8", "bf16": "bfloat16"}.get(precision, "float32")
    return Row(
        name=NAMES[kind].format(PAPER_NAMES[encoder]),
        kind=kind,
        encoder=encoder,
        input_size=(side, side),
        engine=engine
        or ("PyTorch 2.9" if kind == "eager" else "ONNX Runtime" if kind == "anomalib-cflow" else "OpenVINO 2026.4"),
        precision=precision,
        device="CPU, 2 threads",
        file=f"{encoder}-{kind}-{side}.onnx",
        size_mb=weights / 1e6,
        work=Work(share * flops * (side / 256) ** 2, share * weights, 3.0 * side * side + 4 * side * side, operands),
        network=timing(rng, scale * network) if network else None,
        verdict=timing(rng, scale * verdict) if verdict else None,
        paper=paper_of(kind, encoder, side),
        model_sha256=SHA.get(precision, "") if (kind, encoder, side) == ("cflow", "resnet18", 256) else "",
    )


def full_report(seed: int = 0) -> Report:
    rng = np.random.default_rng(seed)
    rows = [row_of(rng, encoder, kind, side) for encoder in MS for side in (256, 512) for kind in MS[encoder]]
    for side in (256, 512):
        rows.append(row_of(rng, "resnet18", "cflow", side, "int8", 2.1))
        rows.append(row_of(rng, "resnet18", "cflow", side, "bf16", 1.8))
        rows.append(row_of(rng, "resnet18", "cflow", side, engine="ONNX Runtime 1.24", speed=0.71))
    sweeps = [sweep_point(rng, "resnet18", 256, 1, 1), sweep_point(rng, "wide_resnet50_2", 256, 1, 1)]
    sweeps += [
        sweep_point(rng, encoder, side, batch, 2)
        for encoder in MS for side in (256, 512) for batch in (1, 2, 4, 8, 16)
    ]  # fmt: skip
    profiles = tuple(profile_of(rng, encoder, side) for encoder in MS for side in (256, 512))
    accuracy = (
        Accuracy("r18.onnx", "fp32", 160, "mvtec/screw", 0.923, 0.984, SHA["fp32"]),
        Accuracy("r18-int8.onnx", "int8", 160, "mvtec/screw", 0.919, 0.983, SHA["int8"]),
        Accuracy("r18.onnx", "fp32", 392, "magnetic tile", 0.84, 0.775, SHA["fp32"]),
    )
    limits = Limits({"float32": 300.0, "bfloat16": 610.0, "int8": 1150.0}, 12.0, "the largest product that was tried.")
    return Report(METHOD, MACHINE, CALM, limits, tuple(rows), tuple(sweeps), profiles, accuracy)


def sweep_point(rng: np.random.Generator, encoder: str, side: int, batch: int, threads: int | None) -> SweepPoint:
    verdict = MS[encoder]["cflow"][1] * (side / 256) ** 2 * batch**0.93 * (2 if threads == 1 else 1) ** 0.9
    name = NAMES["cflow"].format(PAPER_NAMES[encoder])
    return SweepPoint(
        name, encoder, (side, side), "OpenVINO 2026.4", "fp32", threads, timing(rng, verdict, batch, 4, 5)
    )


def profile_of(rng: np.random.Generator, encoder: str, side: int) -> Profile:
    names = ["encoder stem", "encoder layer1", "encoder layer2", "encoder layer3", "encoder layer4"]
    if encoder == "mobilenet_v3_large":
        names[1:] = [f"encoder features{stage}" for stage in range(1, 17)]
    names += [f"decoder {tap} block {block}" for tap in (1, 2, 3) for block in range(8)]
    names += ["upsampling and score", "frames", "data layout"]
    ms = [*rng.uniform(1, 3, len(names) - 27) * 5 / (len(names) - 27), *rng.uniform(0.2, 0.6, 24), 0.5, 0.2, 0.1]
    groups = tuple(LayerGroup(name, float(value), 3) for name, value in zip(names, ms, strict=True))
    return Profile(NAMES["cflow"].format(PAPER_NAMES[encoder]), (side, side), "OpenVINO 2026.4", "fp32", groups)


@pytest.fixture(scope="module")
def report() -> Report:
    return full_report()


def small_report() -> Report:
    """Something for every picture, quickly drawn."""
    rng = np.random.default_rng(7)
    full = full_report(1)
    rows = tuple(row_of(rng, "resnet18", kind, 256) for kind in ("encoder", "cflow"))
    sweeps = tuple(sweep_point(rng, "resnet18", 256, *at) for at in ((1, 2), (4, 2), (1, 1)))
    return replace(full, rows=rows, sweeps=sweeps, profiles=full.profiles[:1], accuracy=full.accuracy[:1])


def texts_of(figure: Any) -> Counter[str]:
    return Counter(text.get_text() for text in figure.findobj(Text) if text.get_text())


# Files


def test_every_picture_is_written_as_svg_without_fonts_or_dates(tmp_path: Path) -> None:
    paths = draw_charts(small_report(), tmp_path / "new")
    assert [path.name for path in paths] == list(PICTURES) and set((tmp_path / "new").iterdir()) == set(paths)
    for path in paths:
        root = ElementTree.fromstring(path.read_bytes())
        assert root.get("width") == "675pt"  # 900 pixels
        assert not root.findall(".//{*}text") and not root.findall(".//{*}date")
        assert root.findtext("{*}title")
        background = root.find(".//{*}g[@id='patch_1']/{*}path")
        assert background is not None and "fill: #ffffff" in background.get("style", "")


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ({"rows": ()}, {"fps", "latency", "roofline", "accuracy"}),
        ({"limits": None}, {"roofline"}),
        ({"sweeps": ()}, {"batches", "threads"}),
        ({"profiles": ()}, {"profile"}),
        ({"accuracy": ()}, {"accuracy"}),
    ],
)
def test_a_picture_without_figures_is_not_written(missing: dict[str, Any], names: set[str], tmp_path: Path) -> None:
    paths = draw_charts(replace(small_report(), **missing), tmp_path)
    assert {path.name for path in paths} == set(PICTURES) - {f"{name}.svg" for name in names}
    assert set(tmp_path.iterdir()) == set(paths)


def test_parts_of_rows_and_sweeps_that_make_no_picture() -> None:
    report = small_report()
    no_verdict = replace(report, rows=tuple(replace(row, verdict=None) for row in report.rows))
    assert not latency_data(no_verdict) and not accuracy_data(no_verdict) and fps_data(no_verdict)
    no_work = replace(report, rows=tuple(replace(row, work=None) for row in report.rows))
    assert not roofline_data(no_work)
    one_batch = replace(report, sweeps=tuple(point for point in report.sweeps if point.timing.batch == 1))
    assert not batches_data(one_batch) and threads_data(one_batch)
    one_thread_count = replace(report, sweeps=tuple(point for point in report.sweeps if point.threads == 2))
    assert batches_data(one_thread_count) and not threads_data(one_thread_count)
    silent = replace(report, profiles=tuple(replace(profile, groups=()) for profile in report.profiles))
    assert not profile_data(silent)
    with styled():
        drawn = {name for name, draw in PICTURES.items() if draw(replace(no_verdict, sweeps=(), profiles=()))}
    assert drawn == {"fps.svg", "roofline.svg"}


def test_an_empty_report_writes_nothing(tmp_path: Path) -> None:
    assert draw_charts(EMPTY, tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_the_same_report_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    first = draw_charts(small_report(), tmp_path / "first")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 7, "svg.fonttype": "none", "axes.grid": False}):
        second = draw_charts(small_report(), tmp_path / "second")
        assert matplotlib.rcParams["font.size"] == 20  # and they are left as they were
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    changed = replace(small_report(), rows=small_report().rows[:1])
    assert draw_charts(changed, tmp_path / "third")[0].read_bytes() != first[0].read_bytes()


def test_without_matplotlib_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match="pip install matplotlib"):
        draw_charts(small_report(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_matplotlib_is_imported_only_to_draw_and_never_its_pyplot(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from runtime.report.charts import draw_charts
assert "matplotlib" not in sys.modules
from tests.runtime.report.test_charts import small_report
assert len(draw_charts(small_report(), Path(sys.argv[1]))) == 7
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, timeout=120, check=True)


# Figures


def test_fps_are_those_of_the_rows_and_of_table_6(report: Report) -> None:
    speeds = fps_data(report)
    drawn = {(speed.label, speed.size): speed for speed in speeds}
    assert len(drawn) == len(speeds) == sum(row.kind != "cflow" or "ONNX" not in row.engine for row in report.rows)
    for row in report.rows:
        if row.kind == "cflow" and "ONNX" in row.engine:
            continue  # the same model in another engine than the report's
        name = f"{row.name}, {row.precision.upper()}" if row.precision != "fp32" else row.name
        speed = drawn[f"{name}, ONNX Runtime" if row.kind == "anomalib-cflow" else name, row.input_size]
        for drawn_fps, timing in ((speed.network, row.network), (speed.verdict, row.verdict)):
            expected = 1000 / np.median([ms for part in timing.rounds_ms for ms in part]) if timing else None
            assert drawn_fps == (pytest.approx(expected) if expected else None)
    papers = {(speed.label, speed.size[0]): speed.paper for speed in speeds}
    assert papers["R18 encoder only", 512] == 62 and papers["CFLOW-AD-WRN50", 256] == 27
    assert papers["SPADE-WRN50", 256] == 0.1 and papers["SPADE-WRN50", 512] is None


def test_every_fps_is_printed_at_its_bar(report: Report) -> None:
    with styled():
        sheet = PICTURES["fps.svg"](report)
    assert sheet is not None
    speeds, printed = fps_data(report), texts_of(sheet.figure)
    expected = Counter(f"{speed.paper:g}" for speed in speeds if speed.paper is not None)
    expected += Counter(number(fps) for speed in speeds for fps in (speed.network, speed.verdict) if fps is not None)
    assert all(printed[text] >= count for text, count in expected.items())
    widths = {round(bar.get_x() + bar.get_width(), 6) for axes in sheet.figure.axes for bar in axes.patches}
    assert widths == {round(fps, 6) for speed in speeds for fps in speed.values.values()}
    assert any("GTX 1080" in text for text in printed) and any(MACHINE.device in text for text in printed)


def test_a_kind_that_only_another_engine_ran_is_drawn_with_its_name() -> None:
    rng = np.random.default_rng(3)
    rows = (row_of(rng, "resnet18", "cflow", 256), row_of(rng, "resnet18", "padim", 256, engine="ONNX Runtime 1.24"))
    assert [speed.label for speed in fps_data(replace(EMPTY, rows=rows))] == ["CFLOW-AD-R18", "PaDiM-R18, ONNX Runtime"]


def test_the_share_of_the_encoders_speed_is_taken_within_rounds() -> None:
    rng = np.random.default_rng(4)
    encoder, cflow = (row_of(rng, "resnet18", kind, 256) for kind in ("encoder", "cflow"))
    weather = rng.uniform(1, 9, 11)  # what slows a whole round
    encoder = replace(encoder, network=Timing(tuple((10 * slow,) for slow in weather)))
    cflow = replace(cflow, network=Timing(tuple((16 * slow,) for slow in weather)))
    kept = kept_speed(replace(EMPTY, rows=(encoder, cflow)))
    assert kept is not None and kept.here == pytest.approx(10 / 16) and kept.paper == pytest.approx(34 / 80)
    assert kept_speed(replace(EMPTY, rows=(cflow,))) is None


def test_latencies_are_multiples_of_their_median(report: Report) -> None:
    rows = [row for row in report.rows if row.kind == "cflow"]
    spreads = latency_data(report)
    assert len(spreads) == len(rows) == 12
    for row, one in zip(rows, spreads, strict=True):
        assert row.verdict is not None
        samples = np.asarray(row.verdict.rounds_ms).ravel()
        p50, p95, p99 = np.percentile(samples, (50, 95, 99))
        assert (one.p50_ms, one.p95, one.p99) == pytest.approx((p50, p95 / p50, p99 / p50))
        assert one.ratios == pytest.approx(samples / p50)
    with styled():
        sheet = PICTURES["latency.svg"](report)
    assert sheet is not None
    printed = texts_of(sheet.figure)
    assert all(printed[f"{number(one.p50_ms)} ms"] for one in spreads)
    assert not printed["0 ms"]


def test_the_violins_outline_is_a_kernel_density_estimate() -> None:
    values = np.random.default_rng(5).normal(0, 0.05, 300)
    grid = np.geomspace(0.8, 1.3, 400)
    quarters = np.percentile(values, (25, 75))
    width = 0.9 * min(np.std(values), (quarters[1] - quarters[0]) / 1.34) * 300**-0.2  # Silverman's rule
    expected = gaussian_kde(values, width / np.std(values, ddof=1))(np.log(grid))
    assert density(np.exp(values).tolist(), grid) == pytest.approx(expected / expected.max())
    assert np.isfinite(density([1.0] * 20, grid)).all()  # no scatter at all


def test_the_roofline_is_counted_work_over_measured_time(report: Report) -> None:
    points = roofline_data(report)
    rows = [row for row in report.rows if row.kind in ("encoder", "cflow", "padim", "spade")]
    assert len(rows) < len(report.rows) and report.limits is not None  # other forms would cover these
    for row, point in zip(rows, points, strict=True):
        timing = row.network or row.verdict
        assert row.work is not None and timing is not None
        seconds = np.median(np.asarray(timing.rounds_ms)) / 1000
        intensity = row.work.flops / (row.work.weight_bytes + row.work.frame_bytes)
        roof = min(report.limits.gflops[row.work.operands], report.limits.read_gb_s * intensity)
        reached = row.work.flops / seconds / 1e9
        assert (point.intensity, point.gflops) == pytest.approx((intensity, reached))
        assert point.share == pytest.approx(reached / roof)
    labels = {point.label for point in points}
    assert {"R18 256", "R18 512 INT8", "R18 256 ONNX Runtime", "WRN50 256"} <= labels
    assert not any("PyTorch" in label for label in labels)  # an engine is named only to tell two rows apart


def test_a_roof_that_was_not_measured_leaves_the_point_without_a_share(report: Report) -> None:
    limits = Limits({"float32": 300.0}, 12.0, "")
    points = roofline_data(replace(report, limits=limits))
    rows = [row for row in report.rows if row.kind in ("encoder", "cflow", "padim", "spade")]
    known = [row.precision in ("fp32",) for row in rows]
    assert [point.share is not None for point in points] == known


def test_batches_and_threads_scale_from_one(report: Report) -> None:
    batches, threads = batches_data(report), threads_data(report)
    assert [one.label for one in batches] == [
        f"{name} {side}" for name in ("R18", "WRN50", "MNetV3") for side in (256, 512)
    ]
    for one in batches:
        points = [point for point in report.sweeps if (point.encoder, point.input_size) == (one.encoder, one.size)]
        fps = {
            point.timing.batch: 1000 * point.timing.batch / np.median(np.asarray(point.timing.rounds_ms))
            for point in points
            if point.threads == 2
        }
        assert one.places == (1, 2, 4, 8, 16) and one.fps == pytest.approx([fps[at] for at in one.places])
        assert one.relative == pytest.approx([fps[at] / fps[1] for at in one.places])
    assert [(one.label, one.places) for one in threads] == [("R18 256", (1, 2)), ("WRN50 256", (1, 2))]
    assert all(one.relative[0] == 1 and one.relative[1] == one.fps[1] / one.fps[0] for one in threads)


def test_all_cores_are_as_many_threads_as_the_machine_has_cores() -> None:
    rng = np.random.default_rng(6)
    points = tuple(sweep_point(rng, "resnet18", 256, batch, None) for batch in (1, 2))
    all_cores = replace(EMPTY, method=replace(METHOD, threads=None), sweeps=points)
    assert batches_data(all_cores)[0].places == (1, 2)
    assert batches_data(replace(EMPTY, sweeps=points))[0].places == (1, 2)  # threads 2, of 2 cores
    more = (*points, sweep_point(rng, "resnet18", 256, 1, 1))
    assert threads_data(replace(all_cores, sweeps=more))[0].places == (1, 2)


def test_accuracy_stands_beside_the_very_model_that_was_judged(report: Report) -> None:
    judged = accuracy_data(report)
    found = [(one.precision, one.engine, one.data, one.image, one.pixel) for one in judged]
    # Both engines run the FP32 file; INT8 was judged on one set; BF16 has no judged file here.
    assert found == [
        ("FP32", "OpenVINO", "mvtec/screw", pytest.approx(92.3), pytest.approx(98.4)),
        ("FP32", "OpenVINO", "magnetic tile", pytest.approx(84.0), pytest.approx(77.5)),
        ("INT8", "OpenVINO", "mvtec/screw", pytest.approx(91.9), pytest.approx(98.3)),
        ("FP32", "ONNX Runtime", "mvtec/screw", pytest.approx(92.3), pytest.approx(98.4)),
        ("FP32", "ONNX Runtime", "magnetic tile", pytest.approx(84.0), pytest.approx(77.5)),
    ]
    first = next(row for row in report.rows if row.model_sha256 == SHA["fp32"])
    assert first.verdict is not None
    samples = np.asarray(first.verdict.rounds_ms).ravel()
    assert (judged[0].p50_ms, judged[0].p95_ms) == pytest.approx(tuple(np.percentile(samples, (50, 95))))


def test_an_auroc_of_another_precision_of_the_same_file_says_so(report: Report) -> None:
    rng = np.random.default_rng(8)
    row = replace(row_of(rng, "resnet18", "cflow", 256, "bf16"), model_sha256=SHA["fp32"])
    lone = replace(report, rows=(row,), accuracy=report.accuracy[:1])
    with styled():
        sheet = PICTURES["accuracy.svg"](lone)
    assert sheet is not None and texts_of(sheet.figure)["BF16 OpenVINO (AUROC: FP32)"] == 2
    both = replace(lone, accuracy=(*lone.accuracy, replace(lone.accuracy[0], precision="bf16", image_auroc=0.9)))
    assert [(one.judged_in, one.image) for one in accuracy_data(both)] == [("BF16", pytest.approx(90))]


def test_a_profile_is_shares_by_stage_and_decoder(report: Report) -> None:
    bars = profile_data(report)
    assert len(bars) == len(report.profiles)
    for profile, bar in zip(report.profiles, bars, strict=True):
        of = {group.name: group.ms for group in profile.groups}
        total = sum(of.values())
        shares = {part.name: part.share for part in bar.parts}
        stages = [name.removeprefix("encoder ") for name in of if name.startswith("encoder")]
        assert list(shares) == [*stages, "decoder 1", "decoder 2", "decoder 3", "upsampling", "other"]
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["stem"] == pytest.approx(of["encoder stem"] / total)
        blocks = [ms for name, ms in of.items() if name.startswith("decoder 2 ")]
        assert len(blocks) == 8 and shares["decoder 2"] == pytest.approx(sum(blocks) / total)
        assert shares["other"] == pytest.approx((of["frames"] + of["data layout"]) / total)
        assert bar.share("decoder") == pytest.approx(sum(ms for name, ms in of.items() if "decoder" in name) / total)
    mixed = Profile("x", (64, 64), "OpenVINO", "fp32", tuple(LayerGroup(name, 1.0, 1) for name in (
        "decoder 10 block 0", "score", "decoder 2 block 0", "encoder", "decoder 2 block 1"
    )))  # fmt: skip
    assert [(part.name, part.share) for part in profile_data(replace(EMPTY, profiles=(mixed,)))[0].parts] == [
        ("encoder", 0.2), ("decoder 2", 0.4), ("decoder 10", 0.2), ("other", 0.2),
    ]  # fmt: skip


def test_rows_are_told_apart(report: Report) -> None:
    labels = row_labels(report, report.rows)
    assert len({(label, row.input_size) for label, row in zip(labels, report.rows, strict=True)}) == len(report.rows)
    twin = replace(report.rows[1], file="another.onnx")
    twins = replace(report, rows=(report.rows[1], twin))
    assert row_labels(twins, twins.rows) == ["CFLOW-AD-R18 (resnet18-cflow-256.onnx)", "CFLOW-AD-R18 (another.onnx)"]
    engines = [short_label(f"cable-R18{end}.onnx", "resnet18", (256, 256), ()) for end in ("", "-int8")]
    assert engines == ["cable-R18.onnx 256", "cable-R18-int8.onnx 256"]


def test_numbers_and_ticks() -> None:
    assert [number(value) for value in (1234.5, 100, 99.96, 99.9, 12, 8.1, 0.1634)] == [
        "1234", "100", "100", "99.9", "12.0", "8.10", "0.163",
    ]  # fmt: skip
    assert log_ticks((0.05, 600)) == [0.1, 1, 10, 100]
    assert log_ticks((30, 250)) == [50, 100, 200]
    assert len(log_ticks((40.0, 60.0))) >= 3


# Reading


class Drawn:
    """The texts of a picture as matplotlib draws them: each with its box in pixels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boxes: list[tuple[str, Any]] = []
        original = Text.draw

        def draw(text: Text, renderer: Any) -> None:
            if text.get_visible() and text.get_text().strip():
                self.boxes.append((text.get_text(), text.get_window_extent(renderer)))
            original(text, renderer)

        monkeypatch.setattr(Text, "draw", draw)

    def overlaps(self) -> Iterator[tuple[str, str]]:
        for (one, box), (other, other_box) in combinations(self.boxes, 2):
            width = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            height = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            if min(width, height) > SLACK:
                yield one, other

    def outside(self, figure: Any) -> list[str]:
        page = figure.bbox
        return [
            text for text, box in self.boxes
            if box.x0 < page.x0 or box.x1 > page.x1 or box.y0 < page.y0 or box.y1 > page.y1
        ]  # fmt: skip


FINE = 4  # pixels to a point: at one, letters snap to pixels and texts grow wider than in an SVG
SLACK = 1.0 * FINE  # a text's box has a little air of its own


def users_report() -> Report:
    """Engines with long and odd names on other encoders and sizes, few runs, and a line of warning."""
    rng = np.random.default_rng(9)
    encoders = ["resnet34", "efficientnet_b5", "resnext50_32x4d"]
    rows = tuple(
        replace(
            row_of(rng, "resnet18", "cflow", 256, speed=1 + 0.3 * at),
            name=f"a rather long name of $an_engine^{at} that its user chose for reasons of their own.onnx",
            kind="engine",
            encoder=encoders[at % 3],
            input_size=[(256, 256), (480, 640), (1080, 1920)][at // 3],
            verdict=Timing(((10.0 + at,), (11.0,), ())),
            network=None,
        )
        for at in range(9)
    )
    sweeps = tuple(
        replace(sweep_point(rng, "resnet18", 256, batch, threads), name=row.name, encoder=row.encoder)
        for row in rows
        for batch, threads in ((1, 2), (2, 2), (4, 2), (1, 1))
    )
    profiles = tuple(replace(profile_of(rng, "resnet18", 256), name=row.name) for row in rows)
    judged = tuple(replace(row, model_sha256=str(at)) for at, row in enumerate(rows))
    accuracy = tuple(
        Accuracy(row.file, "fp32", 20, "a data set with a long name, too, of which little is known", 0.9, None, str(at))
        for at, row in enumerate(rows)
    )
    warned = replace(CALM, warnings=("others used 31 % of the cores' time: close what else runs",))
    limits = Limits({"float32": 300.0}, 12.0, "a how " * 40)
    return Report(METHOD, MACHINE, warned, limits, judged, sweeps, profiles, accuracy)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("which", ["full", "another", "small", "user's"])
def test_no_text_covers_another_or_leaves_the_page(name: str, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    makers = {"full": full_report, "another": lambda: full_report(2), "small": small_report, "user's": users_report}
    with styled():
        sheet = PICTURES[name](makers[which]())
        if sheet is None:
            pytest.skip("this report has nothing for it")
        drawn = Drawn(monkeypatch)
        sheet.figure.set_dpi(72 * FINE)
        sheet.figure.draw_without_rendering()
    assert drawn.boxes
    assert not list(drawn.overlaps())
    assert not drawn.outside(sheet.figure)
    assert min(axes.get_window_extent().width for axes in sheet.figure.axes) > 90 * FINE  # names leave room to draw in


def _luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_letters_stand_out_from_the_page() -> None:
    names = [*MS, *(f"another{at}" for at in range(4))]
    rows = tuple(replace(full_report().rows[0], encoder=name) for name in names)
    colours = encoder_colours(replace(EMPTY, rows=rows)).values()
    assert len(set(colours)) == 7
    # 4.5 is what WCAG 2 asks for text of this size.
    assert all(1.05 / (_luminance(written(colour)) + 0.05) >= 4.5 for colour in (*colours, SOFT, INK))


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_line_ends_keep_their_order_and_their_distance(seed: int) -> None:
    heights = np.random.default_rng(seed).uniform(0, 100, 9).tolist()
    moved = spread(heights, 10, 100)
    assert np.argsort(moved).tolist() == np.argsort(heights).tolist()
    assert np.diff(np.sort(moved)).min() >= 10 - 1e-9 and max(moved) <= 100


def test_labels_that_do_not_touch_stay() -> None:
    assert spread([50, 10, 30], 10, 100) == [50, 10, 30]
    assert spread([50, 50], 10, 100) == [45, 55] and spread([100, 100], 10, 100) == [90, 100]


def test_a_long_text_keeps_both_ends() -> None:
    with styled():
        short = shortened("a_very_long_name_of_an_engine.onnx", 8, 100)
        assert short.startswith("a_very") and short.endswith(".onnx") and "…" in short and text_width(short, 8) <= 100
        assert shortened("short.onnx", 8, 100) == "short.onnx"
