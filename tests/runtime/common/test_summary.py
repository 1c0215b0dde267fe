import pytest

from runtime.common.summary import Summary


def test_counts_verdicts_and_percentiles_by_stage():
    summary = Summary()
    for ms in range(1, 101):
        summary.add("anomalous" if ms > 97 else "good", {"execute": float(ms), "total": 2.0 * ms})
    assert summary.frames == 100 and summary.fps > 0
    # the linear definition: value at rank p / 100 * (n - 1) of the sorted 1 .. 100
    assert summary.percentiles_ms()["execute"] == pytest.approx((50.5, 95.05, 99.01))
    assert summary.percentiles_ms()["total"] == pytest.approx((101.0, 190.1, 198.02))
    text = summary.text("a device", dropped=4)
    assert "100 frames: 97 good, 3 anomalous, 4 dropped" in text and "on a device" in text
    assert "p50" in text and "95.05" in text


def test_an_empty_run_has_no_table():
    text = Summary().text("a device")
    assert "0 frames: 0 good, 0 anomalous\n" in text and "p50" not in text and "dropped" not in text


def test_several_sources_have_a_line_each_and_the_newest_latencies_count(monkeypatch):
    monkeypatch.setattr("runtime.common.summary.KEPT", 10)
    summary = Summary()
    for ms in range(25):
        summary.add("good" if ms % 2 else "anomalous", {"execute": float(ms)}, "left" if ms < 20 else "right")
    lines = summary.text("a device", {"left": 0, "right": 7, "dark": 2}).splitlines()
    assert lines[:4] == [
        "25 frames: 12 good, 13 anomalous, 9 dropped",
        "  left: 20 frames: 10 good, 10 anomalous",
        "  right: 5 frames: 2 good, 3 anomalous, 7 dropped",
        "  dark: 0 frames: 0 good, 0 anomalous, 2 dropped",
    ]
    assert summary.percentiles_ms()["execute"][0] == pytest.approx(19.5)  # the median of 15 .. 24
    one = Summary()
    one.add("good", {"execute": 1.0}, "left")
    assert "left" not in one.text("a device", {"left": 3}) and ", 3 dropped" in one.text("a device", {"left": 3})
