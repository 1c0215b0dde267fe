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
from runtime.report.charts import _pictures, draw_charts
from runtime.report.charts.accuracy import accuracy_data
from runtime.report.charts.fps import fps_data
from runtime.report.charts.latency import latency_data
from runtime.report.charts.profile import profile_data
from runtime.report.charts.roofline import roofline_data
from runtime.report.charts.style import STYLE, encoder_colours, row_labels
from runtime.report.charts.sweeps import batches_data, threads_data
from runtime.report.schema import Limits, Report, Timing, read_report
from tests.support.paths import ROOT

PICTURES = ("fps", "latency", "roofline", "batches", "threads", "accuracy", "profile")
NAMES_OF_PICTURES = [f"{name}.svg" for name in PICTURES]
SIZES = [(256, 256), (512, 512)]


@pytest.fixture(scope="module")
def report() -> Report:
    """A real one, with everything that a picture shows."""
    return read_report(ROOT / "docs" / "table6" / "report.json")


@pytest.fixture(scope="module")
def small(report: Report) -> Report:
    """Something for every picture, quickly drawn."""
    rows = [row for row in report.rows if row.group == ("resnet18", SIZES[0]) and row.kind in ("cflow", "engine")]
    sweeps = tuple(point for point in report.sweeps if point.encoder == "resnet18")
    return replace(report, rows=tuple(rows), sweeps=sweeps, profiles=report.profiles[:1])


def empty(report: Report) -> Report:
    return replace(report, limits=None, rows=(), sweeps=(), profiles=(), accuracy=())


def drawn(report: Report, name: str) -> Any:
    """The picture as matplotlib has it."""
    with matplotlib.style.context(STYLE, after_reset=True):
        return _pictures()[name](report)


def samples(timing: Timing) -> list[float]:
    return [ms for part in timing.rounds_ms for ms in part]


def texts_of(figure: Any) -> Counter[str]:
    return Counter(text.get_text() for text in figure.findobj(Text) if text.get_text())


# Files


def test_every_picture_is_written_as_svg_without_fonts_or_dates(small: Report, tmp_path: Path) -> None:
    paths = draw_charts(small, tmp_path / "new")
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
def test_a_picture_without_figures_is_not_written(
    missing: dict[str, Any], names: set[str], small: Report, tmp_path: Path
) -> None:
    paths = draw_charts(replace(small, **missing), tmp_path)
    assert {path.name for path in paths} == set(NAMES_OF_PICTURES) - {f"{name}.svg" for name in names}
    assert set(tmp_path.iterdir()) == set(paths)


def test_an_empty_report_writes_nothing(report: Report, tmp_path: Path) -> None:
    assert draw_charts(empty(report), tmp_path / "none") == [] and not (tmp_path / "none").exists()


def test_the_same_report_gives_the_same_bytes_whatever_the_users_settings(small: Report, tmp_path: Path) -> None:
    first = draw_charts(small, tmp_path / "first")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 7, "svg.fonttype": "none", "axes.grid": False}):
        second = draw_charts(small, tmp_path / "second")
        assert matplotlib.rcParams["font.size"] == 20  # and they are left as they were
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_without_matplotlib_the_line_says_what_to_install(
    small: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'cflow-edge\[report\]'"):
        draw_charts(small, tmp_path / "new")
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
    assert list(speeds) == SIZES
    assert sum(map(len, speeds.values())) == len(report.rows)
    for row, label in zip(report.rows, row_labels(report, report.rows), strict=True):
        speed = speeds[row.input_size][label]
        for name, timing in (("network", row.network), ("verdict", row.verdict)):
            expected = 1000 / np.median(samples(timing)) if timing else None
            assert speed.get(name) == (pytest.approx(expected) if expected else None)
    assert (
        speeds[512, 512]["R18 encoder only"]["paper"] == 62 and "paper" not in speeds[256, 256]["CFLOW-AD-R18, unfused"]
    )
    other = replace(report.rows[-1], kind="cflow", engine="ONNX Runtime")  # the same in another engine is left out
    assert fps_data(replace(report, rows=(*report.rows, other))) == speeds
    printed = texts_of(drawn(report, "fps.svg"))
    values = Counter(f"{fps:.3g}" for of in speeds.values() for speed in of.values() for fps in speed.values())
    assert all(printed[text] >= count for text, count in values.items())


def test_latencies_are_multiples_of_their_median(report: Report) -> None:
    verdicts = latency_data(report)
    assert [len(of_size) for of_size in verdicts.values()] == [13, 9]
    figure = drawn(report, "latency.svg")
    for axes, of_size in zip(figure.axes, verdicts.values(), strict=True):
        for place, (label, row, _) in enumerate(of_size):
            ms = samples(row.verdict)
            lines = [line for line in axes.lines if set(line.get_ydata()) == {place}]
            assert np.sort(lines[0].get_xdata()) == pytest.approx(np.sort(ms) / np.median(ms))
            marks = [float(line.get_xdata()[0]) for line in lines[1:]]
            assert marks == pytest.approx(np.percentile(ms, (50, 95, 99)) / np.median(ms))
            assert texts_of(axes)[f"{label}: {np.median(ms):.1f} ms"]


def test_the_roofline_is_counted_work_over_measured_time(report: Report) -> None:
    by_operands = roofline_data(report)
    rows = [row for row in report.rows if row.kind in ("encoder", "cflow", "padim", "spade")]
    assert sum(map(len, by_operands.values())) == len(rows) < len(report.rows)  # other forms would cover these
    for operands, points in by_operands.items():
        for point in points:
            work, timing = point.row.work, point.row.network or point.row.verdict
            assert work.operands == operands
            assert point.intensity == pytest.approx(work.flops / (work.weight_bytes + work.frame_bytes))
            assert point.gflops == pytest.approx(work.flops / 1e6 / np.median(samples(timing)))
    for axes, operands in zip(drawn(report, "roofline.svg").axes, by_operands, strict=True):
        intensities, roof = axes.lines[0].get_data()
        assert roof == pytest.approx(np.minimum(report.limits.read_gb_s * intensities, report.limits.gflops[operands]))
    assert list(roofline_data(replace(report, limits=Limits({"float32": 300.0}, 12.0, "")))) == ["float32"]


def test_batches_and_threads_scale_from_one(report: Report) -> None:
    batches, threads = batches_data(report), threads_data(report)
    names = ("CFLOW-AD-R18", "CFLOW-AD-WRN50", "CFLOW-AD-MNetV3")
    assert {label: list(line) for label, line in batches.items()} == {
        f"{name} 256 FP32": [1, 2, 4, 8, 16, 32] for name in names
    }
    assert {label: list(line) for label, line in threads.items()} == {f"{name} 256 FP32": [1, 2] for name in names}
    absolute, relative = drawn(report, "batches.svg").axes
    for line, multiples, points in zip(absolute.lines, relative.lines, batches.values(), strict=True):
        fps = [1000 * n / np.median(samples(point.timing)) for n, point in points.items()]
        assert line.get_ydata() == pytest.approx(fps) and multiples.get_ydata() == pytest.approx(np.divide(fps, fps[0]))


def test_all_cores_are_as_many_threads_as_the_machine_has_cores(report: Report) -> None:
    two, all_cores = (replace(report, method=replace(report.method, threads=count)) for count in (2, None))
    assert report.machine.cores == 2 and batches_data(two) == batches_data(all_cores) != {}
    assert not batches_data(replace(report, method=replace(report.method, threads=1)))  # only batch 1 has one thread


def test_accuracy_stands_beside_the_very_model_that_was_judged(report: Report) -> None:
    found = [(row.file, row.precision, one.precision, one.image_auroc) for row, _, one in accuracy_data(report)]
    judged = {(one.file, one.precision): one.image_auroc for one in report.accuracy}
    assert [part[:3] for part in found] == [
        ("screw.onnx", "fp32", "fp32"),
        ("screw.onnx", "bf16", "fp32"),  # the same file, judged in FP32 only
        ("screw-int8.int8.onnx", "int8", "int8"),
        ("screw.fp16.onnx", "fp16", "fp16"),
    ]
    assert all(auroc == judged[file, precision] for file, _, precision, auroc in found)
    assert any("BF16" in text and "(AUROC: fp32)" in text for text in texts_of(drawn(report, "accuracy.svg")))
    fp32 = next(one for one in report.accuracy if one.file == "screw.onnx")
    own = replace(fp32, precision="bf16", image_auroc=0.9)
    both = replace(report, accuracy=(*report.accuracy, own))
    assert [one.image_auroc for row, _, one in accuracy_data(both) if row.precision == "bf16"] == [0.9]


def test_a_profile_is_shares_by_stage_and_decoder(report: Report) -> None:
    for profile in report.profiles:
        of = {group.name: group.ms for group in profile.groups}
        total, shares = sum(of.values()), profile_data(profile)
        stages = [name.removeprefix("encoder ") for name in of if name.startswith("encoder")]
        assert [part for _, part in shares] == [*stages, "decoder 1", "decoder 2", "decoder 3", "upsampling", "other"]
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["encoder", "stem"] == pytest.approx(of["encoder stem"] / total)
        blocks = [ms for name, ms in of.items() if name.startswith("decoder 2 ")]
        assert len(blocks) == 9 and shares["decoder", "decoder 2"] == pytest.approx(sum(blocks) / total)
        assert shares["other", "other"] == pytest.approx((of["frames"] + of["data layout"]) / total)


def test_rows_are_told_apart(report: Report) -> None:
    labels = row_labels(report, report.rows)
    assert len({(label, row.input_size) for label, row in zip(labels, report.rows, strict=True)}) == len(report.rows)
    cflow = next(row for row in report.rows if row.kind == "cflow")
    twins = (cflow, replace(cflow, file="another.onnx"))
    expected = [f"CFLOW-AD-R18 ({cflow.file})", "CFLOW-AD-R18 (another.onnx)"]
    assert row_labels(replace(report, rows=twins), twins) == expected


def test_an_encoder_has_its_colour_in_every_report(report: Report) -> None:
    more = tuple(replace(report.rows[0], encoder=name) for name in ("a", "b", "resnet18"))
    colours = encoder_colours(replace(empty(report), rows=more))
    assert colours["resnet18"] == encoder_colours(report)["resnet18"]
    assert len({colours[name] for name in ("a", "b", "resnet18")}) == 3
