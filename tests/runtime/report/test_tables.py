"""What a report says, from figures that are chosen: tables, sentences, roofs, and what changed since an earlier one."""

import json
import re
from dataclasses import replace

import pytest

from runtime.common.errors import UserError
from runtime.report.compare import compare
from runtime.report.ratios import anchor_row, full_to_encoder, paper_full_to_encoder, times_anchor
from runtime.report.roofline import roof_of, roof_of_point
from runtime.report.schema import Accuracy, LayerGroup, Profile, Report, SweepPoint, Work, from_json, to_json
from runtime.report.tables import FORMATS, to_markdown
from tests.support.report_rows import LIMITS, report, row, timing

ROWS = (
    row("encoder", network=20.0, verdict=None, name="R18 encoder only", size_mb=45.0),
    row("cflow", network=40.0, verdict=50.0, name="CFLOW-AD-R18"),
    row("cflow", network=10.0, verdict=20.0, name="CFLOW-AD-R18", precision="int8", size_mb=25.0),
    row("encoder", network=6.0, name="R18 encoder only", precision="int8"),
    row("eager", network=180.0, verdict=200.0, name="CFLOW-AD-R18, eager PyTorch", engine="PyTorch"),
    row("padim", verdict=100.0, name="PaDiM-R18", engine="PyTorch", size_mb=160.0),
)


def test_ratios_are_those_of_rounds_with_the_papers_beside() -> None:
    encoder, cflow, int8, _, eager, padim = ROWS
    assert full_to_encoder(cflow, ROWS) == (pytest.approx(0.5), pytest.approx(0.0))
    assert full_to_encoder(int8, ROWS)[0] == pytest.approx(0.6)
    assert full_to_encoder(eager, ROWS) is full_to_encoder(encoder, ROWS) is full_to_encoder(cflow, ROWS[1:]) is None
    assert paper_full_to_encoder(cflow, ROWS) == pytest.approx(34 / 80) and paper_full_to_encoder(eager, ROWS) is None
    assert anchor_row(ROWS) is cflow and anchor_row(ROWS[2:]) is int8
    assert [times_anchor(row, cflow)[0] for row in (int8, eager, padim)] == pytest.approx([2.5, 0.25, 0.5])
    assert times_anchor(encoder, cflow) is None


def test_what_only_a_gpu_tells_is_shown_where_it_is_told() -> None:
    plans = (
        row("encoder", network=2.0, verdict=2.5, name="R18 encoder only", kernels={"network": 20, "verdict": 20}),
        row(
            "cflow",
            network=4.0,
            verdict=5.0,
            name="CFLOW-AD-R18",
            kernels={"network": 41, "verdict": 47},
            device_memory_mb=123.4,
            stages_ms={"execute": 4.4, "copy_in": 0.021, "copy_out": 0.032},
        ),
    )
    work = Work(1e9, 8e7, 2e5)
    point = SweepPoint("CFLOW-AD-R18", "resnet18", (256, 256), "TensorRT", "fp32", None, timing(640.0, batch=32))
    device = replace(LIMITS, launch_us=2.0)
    measured = report(*plans, limits=device, sweeps=(replace(point, work=work, kernels=50),))
    text, plain = FORMATS["text"](measured), FORMATS["text"](report(*ROWS))
    assert {"47", "0.021", "0.032", "123"} <= set(text.split()) and "a launch in 2.00 µs" in text
    assert "kernels" not in plain and "GPU" not in plain
    # 10 ms of operations at 100 GFLOP/s, 41 launches of 2 µs
    assert roof_of(plans[1], device).floor_ms == pytest.approx(10.0 + 0.082)
    assert roof_of(replace(plans[1], kernels={}), device).floor_ms == pytest.approx(10.0)
    # 32 times the operations, the weights read once, and as many launches as for one frame
    found = roof_of_point(measured.sweeps[0], device)
    assert found.floor_ms == pytest.approx(320 + 0.1) and found.bound == "arithmetic"
    tiny = replace(point, work=Work(1e3, 1e3, 10.0), kernels=50)
    assert roof_of_point(tiny, device).bound == "launches"
    assert roof_of_point(point, device) is None


def test_the_noise_of_a_ratio_is_that_of_the_ratio() -> None:
    weather = (1.0, 1.5, 1.1, 1.9, 1.2, 1.4, 1.0, 1.8, 1.3, 1.6)  # slows both alike
    slow = replace(ROWS[1], verdict=timing(*(50 * factor for factor in weather)))
    fast = replace(ROWS[4], verdict=timing(*(200 * factor for factor in weather)))
    assert times_anchor(fast, slow) == (pytest.approx(0.25), pytest.approx(0.0, abs=1e-12))
    assert slow.verdict.noise > 0.05


def test_a_roof_is_the_larger_of_two_times() -> None:
    arithmetic = roof_of(row(network=40.0, work=Work(2e9, 8e7, 2e7)), LIMITS)  # 20 ms at 100 GFLOP/s; 10 ms at 10 GB/s
    assert (arithmetic.floor_ms, arithmetic.bound, arithmetic.reached) == (20.0, "arithmetic", 0.5)
    assert arithmetic.gflops == pytest.approx(50.0)
    fetched = roof_of(row(network=40.0, work=Work(2e9, 3e8, 0, "int8")), LIMITS)  # 5 ms at 400 GFLOP/s; 30 ms
    assert (fetched.floor_ms, fetched.bound, fetched.reached) == (30.0, "bytes", 0.75)
    assert roof_of(row(network=40.0, work=Work(1, 1, 1, "float16")), LIMITS) is None  # no limit of that type
    assert roof_of(row(network=40.0, work=None), LIMITS) is roof_of(row(network=40.0), None) is None


def test_text_and_markdown_show_the_same_cells() -> None:
    whole = report(*ROWS)
    text, markdown = FORMATS["text"](whole), FORMATS["markdown"](whole)
    network_header = [
        "model", "engine", "precision", "p50 ms", "± %", "fps", "paper fps", "full / encoder", "paper", "GFLOP",
        "GFLOP/s", "floor ms", "reached", "bound by", "MB", "paper MB",
    ]  # fmt: skip
    verdict_header = [
        "model", "engine", "precision", "p50 ms", "p95 ms", "p99 ms", "runs", "± %", "fps", "x CFLOW-AD", "execute ms",
        "first verdict s", "memory MB", "GFLOP", "MB",
    ]  # fmt: skip
    network = [
        "CFLOW-AD-R18", "OpenVINO", "fp32", "40.00", "0.0", "25.0", "34", "0.50", "0.42", "1.00", "25", "10.00",
        "25 %", "arithmetic", "80.0", "96",
    ]  # fmt: skip
    # samples are 0.9, 1 and 1.2 times 50 ms: of 18 the 95th percentile lies among those of 60 ms
    verdict = [
        "CFLOW-AD-R18", "OpenVINO", "fp32", "50.00", "60.00", "60.00", "18", "0.0", "20.0", "1.00", "45.00", "0.50",
        "300", "1.00", "80.0",
    ]  # fmt: skip
    for cells, names in ((network, network_header), (verdict, verdict_header)):
        assert f"| {' | '.join(names)} |" in markdown and len(cells) == len(names)
        assert " ".join(cells).split() in [line.split() for line in text.splitlines()]
        assert f"| {' | '.join(cells)} |" in markdown
    for written in (text, markdown):
        flat = " ".join(written.split())
        assert "never the paper's fps with the fps measured here" in flat and "weights: seeded random" in flat
        assert "clocks: not told" in flat and "other processes: 1 %" in flat
    assert "| PaDiM-R18 | PyTorch | fp32 | 100.00 | 120.00 | 120.00 | 18 | 0.0 | 10.0 | 0.50 | 90.00 |" in markdown
    assert "![fps](fps.svg)" in to_markdown(whole, ["fps.svg"])


def test_warnings_come_first_and_what_was_left_out_last() -> None:
    spoilt = report(
        ROWS[1], left_out=("X 256x256 fp32: no such thing",), conditions=replace(report().conditions, warnings=("hot",))
    )
    text = FORMATS["text"](spoilt)
    assert text.startswith("Warnings\n--------\n\nhot\n") and text.rstrip().endswith("X 256x256 fp32: no such thing")


def test_a_legend_stands_once_however_many_groups() -> None:
    other = tuple(replace(row, input_size=(512, 512)) for row in ROWS)
    text = " ".join(FORMATS["text"](report(*ROWS, *other)).split())
    assert text.count("no upsampling, no map copied back") == text.count("From a frame of the input size") == 1
    assert "resnet18 512x512: encoder and decoders" in text and "resnet18 512x512: frame to verdict" in text


def test_sweeps_accuracy_and_layers_have_tables() -> None:
    def point(threads: int | None, batch: int, ms: float) -> SweepPoint:
        return SweepPoint(
            "CFLOW-AD-R18", "resnet18", (256, 256), "OpenVINO", "fp32", threads, timing(ms, ms, batch=batch)
        )

    whole = report(
        replace(ROWS[1], model_sha256="abc"),
        sweeps=(point(None, 1, 50.0), point(None, 4, 160.0), point(1, 1, 90.0), point(2, 1, 50.0)),
        accuracy=(
            Accuracy("a.onnx", "fp32", 160, "screw", 0.9, 0.98, "abc"),
            Accuracy("b.onnx", "fp32", 160, "screw", 0.9, 0.98, "another file"),
        ),
        profiles=(
            Profile("a.onnx", (256, 256), "OpenVINO", "fp32", (LayerGroup("stem", 1.0, 2), LayerGroup("x", 3.0, 5))),
        ),
    )
    rows = [line.split() for line in FORMATS["text"](whole).splitlines()]
    assert ["CFLOW-AD-R18", "256x256", "OpenVINO", "fp32", "4", "160.00", "0.0", "25.0", "1.25"] in rows
    assert ["CFLOW-AD-R18", "256x256", "OpenVINO", "2", "50.00", "0.0", "20.0", "1.80"] in rows
    assert ["a.onnx", "fp32", "OpenVINO", "160", "90.00", "98.00", "50.00", "80.0"] in rows
    assert not any(cells[:1] == ["b.onnx"] for cells in rows)
    assert ["x", "5", "3.000", "75.0"] in rows


def test_every_number_of_the_table_can_be_traced_in_the_json() -> None:
    whole = report(*ROWS)
    written = FORMATS["json"](whole)
    assert from_json(written, "it") == whole
    value = json.loads(written)
    cflow = value["rows"][1]
    samples = [ms for samples in cflow["verdict"]["rounds_ms"] for ms in samples]
    assert sorted(samples)[len(samples) // 2] == cflow["verdict"]["p50"] == 50.0
    assert value["schema"] == "cflow-edge/report/2" and value["limits"]["gflops"] == LIMITS.gflops


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "must be JSON"),
        ("[]", "must have schema cflow-edge/report/2; found list"),
        ('{"schema": "cflow-edge/report/1"}', "found cflow-edge/report/1"),
        ('{"schema": "cflow-edge/report/2", "rows": [{"name": "a"}]}', "must hold every field"),
        (to_json(report()).replace('"cores": 2', '"cores": "two"'), "must hold every field"),
    ],
)
def test_another_json_is_refused_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        from_json(text, "old.json")
    assert "\n" not in str(error.value) and "old.json" in str(error.value)


def changes(old: Report, new: Report) -> dict[str, list[str]]:
    """The cells of the comparison's table by the figure's name."""
    lines = compare(old, new).splitlines()[2:]
    found = (re.fullmatch(r"(.+?)  +(\S+) +(\S+) +(\S+)  +(-|\S+ %) +(\S+)  +(.+)", line.rstrip()) for line in lines)
    return {match[1]: list(match.groups()[1:]) for match in found if match}


def test_a_change_is_one_that_the_noise_of_both_rarely_makes() -> None:
    quiet, noisy = timing(*[50.0] * 10), timing(*[44.0, 44, 50, 50, 56, 56, 62, 62, 50, 50])
    assert noisy.noise > 0.05
    cases = ((quiet, 50.5, "same"), (quiet, 52.0, "higher"), (quiet, 40.0, "lower"), (noisy, 52.0, "same"))
    for before, ms, verdict in cases:
        old = report(replace(ROWS[1], verdict=before, network=None))
        new = report(replace(ROWS[1], verdict=timing(*[ms] * 10), network=None))
        ((what, cells),) = changes(old, new).items()
        assert what == "CFLOW-AD-R18 256x256 OpenVINO fp32, verdict, p50 ms"
        assert cells[2] == f"{ms / before.p50:.3f}" and cells[-1] == verdict


def test_a_single_round_tells_no_change() -> None:
    old, new = (report(replace(ROWS[1], verdict=timing(ms), network=None)) for ms in (50.0, 70.0))
    ((_, cells),) = changes(old, new).items()
    assert cells[2:] == ["1.400", "-", "-", "too few runs"] and "0 of 1 figures changed" in compare(old, new)
    assert " - " in FORMATS["markdown"](old)


def test_ratios_are_compared_too_and_what_only_one_has_is_named() -> None:
    old = report(*ROWS)
    new = report(*ROWS[:-1], replace(ROWS[-1], verdict=timing(*[25.0] * 6)), row("unfused", verdict=60.0))
    found = changes(old, new)
    assert found["PaDiM-R18 256x256 PyTorch fp32, x CFLOW-AD-R18"][:3] == ["0.5", "2", "4.000"]
    assert found["PaDiM-R18 256x256 PyTorch fp32, verdict, p50 ms"][-1] == "lower"
    assert found["CFLOW-AD-R18 256x256 OpenVINO int8, full / encoder"][-1] == "same"
    said = compare(old, new)
    assert "2 of" in said and "in one of the two only: unfused row unfused 256x256 OpenVINO fp32" in said
    elsewhere = replace(new, machine=replace(new.machine, device="another"))
    assert "the machines differ: a device, 2 cores; now another, 2 cores" in compare(old, elsewhere)
    assert compare(old, old).startswith("compared with the report of 2000-01-01T00:00:00+00:00: 0 of ")
