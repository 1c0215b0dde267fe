"""The report's pictures: what they show against naive computations, and that they can be read."""

import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from matplotlib.text import Text

from runtime.common.errors import UserError
from runtime.report import paper_table
from runtime.report.charts import _pictures, draw_charts
from runtime.report.charts.accuracy import accuracy_data
from runtime.report.charts.fps import fps_data
from runtime.report.charts.latency import latency_data
from runtime.report.charts.profile import profile_data
from runtime.report.charts.roofline import roofline_data
from runtime.report.charts.style import STYLE, encoder_colours, row_labels
from runtime.report.charts.sweeps import batches_data, threads_data
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
PICTURES = ("fps", "latency", "roofline", "batches", "threads", "accuracy", "profile")
NAMES_OF_PICTURES = [f"{name}.svg" for name in PICTURES]
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


def drawn(report: Report, name: str) -> Any:
    """The picture as matplotlib has it."""
    with matplotlib.style.context(STYLE, after_reset=True):
        return _pictures()[name](report)


def texts_of(figure: Any) -> Counter[str]:
    return Counter(text.get_text() for text in figure.findobj(Text) if text.get_text())


# Files


def test_every_picture_is_written_as_svg_without_fonts_or_dates(tmp_path: Path) -> None:
    paths = draw_charts(small_report(), tmp_path / "new")
    assert [path.name for path in paths] == NAMES_OF_PICTURES and set((tmp_path / "new").iterdir()) == set(paths)
    for path in paths:
        root = ElementTree.fromstring(path.read_bytes())
        assert root.get("width") == "675pt"  # 900 pixels
        assert not root.findall(".//{*}text") and not root.findall(".//{*}date")
        assert root.findtext("{*}title") == path.stem


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
    assert {path.name for path in paths} == set(NAMES_OF_PICTURES) - {f"{name}.svg" for name in names}
    assert set(tmp_path.iterdir()) == set(paths)


def test_an_empty_report_writes_nothing(tmp_path: Path) -> None:
    assert draw_charts(EMPTY, tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_the_same_report_gives_the_same_bytes_whatever_the_users_settings(tmp_path: Path) -> None:
    first = draw_charts(small_report(), tmp_path / "first")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 7, "svg.fonttype": "none", "axes.grid": False}):
        second = draw_charts(small_report(), tmp_path / "second")
        assert matplotlib.rcParams["font.size"] == 20  # and they are left as they were
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_without_matplotlib_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'cflow-edge\[report\]'"):
        draw_charts(small_report(), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_matplotlib_is_imported_only_to_draw() -> None:
    program = "import sys, runtime.report.main, runtime.report.charts; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=120, check=True)


@pytest.mark.parametrize("name", NAMES_OF_PICTURES)
def test_no_words_cover_others_or_leave_the_page(name: str, report: Report) -> None:
    figure = drawn(report, name)
    figure.savefig(io.BytesIO(), format="svg")  # which lays it out
    page = figure.bbox
    boxes = [(text.get_text(), text.get_window_extent()) for text in _words(figure) if text.get_text().strip()]
    for (one, box), (other, box_of_other) in combinations(boxes, 2):
        overlap = box.intersection(box, box_of_other)
        assert overlap is None or min(overlap.width, overlap.height) < 1.5, (name, one, other)
    assert all(box.x0 >= -1 and box.x1 <= page.x1 + 1 and box.y0 >= -1 and box.y1 <= page.y1 + 1 for _, box in boxes)


def _words(figure: Any) -> list[Text]:
    """What is drawn: an axis has more labels than those of the ticks that lie on it."""
    words = [*figure.texts, *(text for legend in figure.legends for text in (legend.get_title(), *legend.get_texts()))]
    for axes in figure.axes:
        words += [axes.xaxis.label, axes.yaxis.label, axes.title, axes._left_title, *axes.texts]
        words += [tick.label1 for axis in (axes.xaxis, axes.yaxis) for tick in axis._update_ticks()]
    return [text for text in words if text.get_visible()]


# Figures


def test_fps_are_those_of_the_rows_and_of_table_6_and_are_printed(report: Report) -> None:
    speeds = fps_data(report)
    assert list(speeds) == [(256, 256), (512, 512)]
    assert sum(map(len, speeds.values())) == sum(row.kind != "cflow" or "ONNX" not in row.engine for row in report.rows)
    for row in report.rows:
        if row.kind == "cflow" and "ONNX" in row.engine:
            continue  # the same model in another engine than the report's
        (label,) = (label for label in row_labels(report, [row]))
        speed = speeds[row.input_size][label]
        for name, timing in (("network", row.network), ("verdict", row.verdict)):
            expected = 1000 / np.median([ms for part in timing.rounds_ms for ms in part]) if timing else None
            assert speed.get(name) == (pytest.approx(expected) if expected else None)
    assert speeds[512, 512]["R18 encoder only"]["paper"] == 62 and "paper" not in speeds[512, 512]["SPADE-WRN50"]
    printed = texts_of(drawn(report, "fps.svg"))
    values = Counter(f"{fps:.3g}" for of in speeds.values() for speed in of.values() for fps in speed.values())
    assert all(printed[text] >= count for text, count in values.items())


def test_latencies_are_multiples_of_their_median(report: Report) -> None:
    verdicts = latency_data(report)
    assert [len(of_size) for of_size in verdicts.values()] == [6, 6]
    figure = drawn(report, "latency.svg")
    for axes, of_size in zip(figure.axes, verdicts.values(), strict=True):
        for place, (label, row, _) in enumerate(of_size):
            samples = np.asarray(row.verdict.rounds_ms).ravel()
            lines = [line for line in axes.lines if set(line.get_ydata()) == {place}]
            assert np.sort(lines[0].get_xdata()) == pytest.approx(np.sort(samples) / np.median(samples))
            marks = [float(line.get_xdata()[0]) for line in lines[1:]]
            assert marks == pytest.approx(np.percentile(samples, (50, 95, 99)) / np.median(samples))
            assert texts_of(axes)[f"{label}: {np.median(samples):.1f} ms"]


def test_the_roofline_is_counted_work_over_measured_time(report: Report) -> None:
    by_operands = roofline_data(report)
    rows = [row for row in report.rows if row.kind in ("encoder", "cflow", "padim", "spade")]
    assert sum(map(len, by_operands.values())) == len(rows) < len(report.rows)  # other forms would cover these
    for operands, points in by_operands.items():
        for point in points:
            work, timing = point.row.work, point.row.network or point.row.verdict
            assert work.operands == operands
            assert point.intensity == pytest.approx(work.flops / (work.weight_bytes + work.frame_bytes))
            assert point.gflops == pytest.approx(work.flops / 1e6 / np.median(np.asarray(timing.rounds_ms)))
    for axes, operands in zip(drawn(report, "roofline.svg").axes, by_operands, strict=True):
        intensities, roof = axes.lines[0].get_data()
        assert roof == pytest.approx(np.minimum(12.0 * intensities, report.limits.gflops[operands]))
    assert list(roofline_data(replace(report, limits=Limits({"float32": 300.0}, 12.0, "")))) == ["float32"]


def test_batches_and_threads_scale_from_one(report: Report) -> None:
    batches, threads = batches_data(report), threads_data(report)
    names = ("CFLOW-AD-R18", "CFLOW-AD-WRN50", "CFLOW-AD-MNetV3")
    assert list(batches) == [f"{name} {side} FP32" for name in names for side in (256, 512)]
    assert all(list(line) == [1, 2, 4, 8, 16] for line in batches.values())
    assert {label: list(line) for label, line in threads.items()} == {f"{name} 256 FP32": [1, 2] for name in names[:2]}
    absolute, relative = drawn(report, "batches.svg").axes
    for line, multiples, points in zip(absolute.lines, relative.lines, batches.values(), strict=True):
        fps = [1000 * n / np.median(np.asarray(point.timing.rounds_ms)) for n, point in points.items()]
        assert line.get_ydata() == pytest.approx(fps) and multiples.get_ydata() == pytest.approx(np.divide(fps, fps[0]))


def test_all_cores_are_as_many_threads_as_the_machine_has_cores() -> None:
    rng = np.random.default_rng(6)
    points = tuple(sweep_point(rng, "resnet18", 256, batch, None) for batch in (1, 2))
    all_cores = replace(EMPTY, method=replace(METHOD, threads=None), sweeps=points)
    (line,) = batches_data(all_cores).values()
    (same,) = batches_data(replace(EMPTY, sweeps=points)).values()  # threads 2, of 2 cores
    assert list(line) == list(same) == [1, 2]
    (line,) = threads_data(replace(all_cores, sweeps=(*points, sweep_point(rng, "resnet18", 256, 1, 1)))).values()
    assert list(line) == [1, 2]


def test_accuracy_stands_beside_the_very_model_that_was_judged(report: Report) -> None:
    found = [(row.precision, row.engine, one.data, one.image_auroc) for row, _, one in accuracy_data(report)]
    # Both engines run the FP32 file; INT8 was judged on one set; BF16 has no judged file here.
    assert found == [
        ("fp32", "OpenVINO 2026.4", "mvtec/screw", 0.923),
        ("fp32", "OpenVINO 2026.4", "magnetic tile", 0.84),
        ("int8", "OpenVINO 2026.4", "mvtec/screw", 0.919),
        ("fp32", "ONNX Runtime 1.24", "mvtec/screw", 0.923),
        ("fp32", "ONNX Runtime 1.24", "magnetic tile", 0.84),
    ]


def test_an_auroc_of_another_precision_of_the_same_file_says_so(report: Report) -> None:
    rng = np.random.default_rng(8)
    row = replace(row_of(rng, "resnet18", "cflow", 256, "bf16"), model_sha256=SHA["fp32"])
    lone = replace(report, rows=(row,), accuracy=report.accuracy[:1])
    assert any("BF16" in text and "(AUROC: fp32)" in text for text in texts_of(drawn(lone, "accuracy.svg")))
    both = replace(lone, accuracy=(*lone.accuracy, replace(lone.accuracy[0], precision="bf16", image_auroc=0.9)))
    assert [(one.precision, one.image_auroc) for _, _, one in accuracy_data(both)] == [("bf16", 0.9)]


def test_a_profile_is_shares_by_stage_and_decoder(report: Report) -> None:
    for profile in report.profiles:
        of = {group.name: group.ms for group in profile.groups}
        total, shares = sum(of.values()), profile_data(profile)
        stages = [name.removeprefix("encoder ") for name in of if name.startswith("encoder")]
        assert [part for _, part in shares] == [*stages, "decoder 1", "decoder 2", "decoder 3", "upsampling", "other"]
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["encoder", "stem"] == pytest.approx(of["encoder stem"] / total)
        blocks = [ms for name, ms in of.items() if name.startswith("decoder 2 ")]
        assert len(blocks) == 8 and shares["decoder", "decoder 2"] == pytest.approx(sum(blocks) / total)
        assert shares["other", "other"] == pytest.approx((of["frames"] + of["data layout"]) / total)


def test_rows_are_told_apart(report: Report) -> None:
    labels = row_labels(report, report.rows)
    assert len({(label, row.input_size) for label, row in zip(labels, report.rows, strict=True)}) == len(report.rows)
    twins = (report.rows[1], replace(report.rows[1], file="another.onnx"))
    expected = ["CFLOW-AD-R18 (resnet18-cflow-256.onnx)", "CFLOW-AD-R18 (another.onnx)"]
    assert row_labels(replace(report, rows=twins), twins) == expected


def test_an_encoder_has_its_colour_in_every_report(report: Report) -> None:
    more = tuple(replace(report.rows[0], encoder=name) for name in ("a", "b", "resnet18"))
    colours = encoder_colours(replace(EMPTY, rows=more))
    assert colours["resnet18"] == encoder_colours(report)["resnet18"]
    assert len({colours[name] for name in ("a", "b", "resnet18")}) == 3
