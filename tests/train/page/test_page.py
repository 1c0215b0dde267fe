"""The evaluation report: read back as a browser would, and compared with what went in."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.common.errors import UserError
from runtime.engines.sidecar import Threshold
from runtime.images.overlay import score_colours
from tests.support.report_reader import Page, decode
from train.data.open import GOOD, LabelledImage
from train.judging.judged_set import JudgedSet
from train.judging.metrics import evaluate_judged
from train.page.charts import POINTS, histogram_curve, thin
from train.page.html import text
from train.page.pictures import JPEG_QUALITY, LARGEST, MASK_PALETTE
from train.page.write import HEADINGS, write_report

SIZE = (48, 64)  # of the maps
THRESHOLD = Threshold(1.0, "false-alarm rate <= 5% from 19 <good> images")
TITLE = 'cable.pt on "cables" & <others>'
HOSTILE = '"><script>alert(1)<.png'
MAGENTA = np.array(MASK_PALETTE[2])


def _judged(folder: Path, per_type: int = 3, size: tuple[int, int] = SIZE, pixels: int = 96) -> JudgedSet:
    """Return a set of good, 'dent' and 'scratch' images on disk, some on the wrong side of the threshold.

    An image score is the mean of a map's ten largest positions, so that nothing may take it for the maximum.
    """
    rng = np.random.default_rng(11)
    images, maps, masks = [], [], []
    for defect, strength in ((GOOD, 0.3), ("dent", 0.3), ("scratch", 1.4)):
        (folder / defect).mkdir(parents=True)
        for number in range(per_type):
            path = folder / defect / f"{number}.png"
            shades = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
            Image.fromarray(shades).resize((pixels, pixels), Image.Resampling.BICUBIC).save(path)
            mask = np.zeros(size, bool)
            if defect != GOOD:
                mask[10:20, 15 + 5 * number : 30 + 5 * number] = True
            anomaly_map = rng.uniform(0, 0.4, size) + mask * strength + rng.uniform(0, 0.1) + (number == 0) * 0.8
            images.append(LabelledImage(path, defect, None))
            maps.append(anomaly_map.astype(np.float32))
            masks.append(mask)
    stack = np.array(maps)
    scores = np.sort(stack.reshape(len(stack), -1), axis=1)[:, -10:].mean(axis=1)
    return JudgedSet(images, stack, scores, masks)


def _write(path: Path, judged: JudgedSet, **options: float | int) -> Page:
    write_report(path, judged, evaluate_judged(judged), THRESHOLD, TITLE, **options)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> JudgedSet:
    return _judged(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def page(judged: JudgedSet, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return _write(tmp_path_factory.mktemp("report") / "report.html", judged)


def test_the_set_holds_every_kind_of_judgement(judged: JudgedSet) -> None:
    called = judged.scores > THRESHOLD.value
    for kind in (True, False):
        assert {bool(value) for value in called[judged.anomalous == kind]} == {True, False}


def test_every_section_is_there_in_order(page: Page) -> None:
    assert list(page.cases) == list(HEADINGS)
    assert THRESHOLD.method in page.words["threshold"]


def test_the_worst_miss_comes_first_and_only_images_below_the_threshold_are_missed(
    page: Page, judged: JudgedSet
) -> None:
    cases = page.cases["misses"]
    expected = np.sort(judged.scores[judged.anomalous])
    # Scores are printed with three decimals.
    np.testing.assert_allclose([case.score for case in cases], expected, atol=5.1e-4)
    missed = int((expected <= THRESHOLD.value).sum())
    assert [case.verdict for case in cases] == ["missed"] * missed + ["caught"] * (len(expected) - missed)


def test_the_worst_false_alarm_comes_first(page: Page, judged: JudgedSet) -> None:
    cases = page.cases["false-alarms"]
    expected = np.sort(judged.scores[~judged.anomalous])[::-1]
    np.testing.assert_allclose([case.score for case in cases], expected, atol=5.1e-4)  # three decimals
    alarms = int((expected > THRESHOLD.value).sum())
    assert [case.verdict for case in cases] == ["false alarm"] * alarms + ["rightly good"] * (len(expected) - alarms)
    assert all("ground truth" not in case.pictures for case in cases)


def test_detections_are_of_every_type_and_a_type_that_is_never_caught_is_named(
    tmp_path: Path, judged: JudgedSet
) -> None:
    scores = judged.scores.copy()
    scores[[image.defect == "dent" for image in judged.images]] = 0.5
    page = _write(tmp_path / "report.html", replace(judged, scores=scores))
    assert "dent: none is caught" in page.words["detections"]
    cases = page.cases["detections"]
    assert {case.verdict for case in cases} == {"caught"} and all("scratch" in case.words for case in cases)


def test_a_single_detection_of_a_type_is_the_median_one(tmp_path: Path, judged: JudgedSet) -> None:
    page = _write(tmp_path / "report.html", judged, rows=2)
    scratches = np.sort([s for s, i in zip(judged.scores, judged.images, strict=True) if i.defect == "scratch"])
    shown = [case.score for case in page.cases["detections"] if "scratch" in case.words]
    assert (scratches > THRESHOLD.value).all() and len(scratches) == 3
    assert shown == pytest.approx([scratches[1]], abs=5.1e-4)  # three decimals


def test_caught_and_missed_are_counted(page: Page, judged: JudgedSet) -> None:
    for defect in ("dent", "scratch"):
        scores = judged.scores[[image.defect == defect for image in judged.images]]
        caught = int((scores > THRESHOLD.value).sum())
        assert f" {defect} {len(scores)} {caught} {len(scores) - caught} " in page.words["counts"]


def test_a_detection_beside_the_defect_is_called_that(tmp_path: Path, judged: JudgedSet) -> None:
    moved = [np.roll(mask, 20, axis=0) if mask is not None else None for mask in judged.masks]
    remark = "nothing is predicted on the defect"
    assert remark in _write(tmp_path / "a.html", replace(judged, masks=moved)).words["detections"]
    assert remark not in _write(tmp_path / "b.html", judged).words["detections"]


def test_photographs_are_the_images_as_the_network_saw_them(page: Page, judged: JudgedSet) -> None:
    worst = int(np.argmin(np.where(judged.anomalous, judged.scores, np.inf)))
    with Image.open(judged.images[worst].path) as image:
        expected = np.asarray(image.resize(SIZE[::-1], Image.Resampling.BILINEAR), float)
    pictures = {what: decode(uri) for what, uri in page.cases["misses"][0].pictures.items()}
    assert list(pictures) == ["image", "ground truth", "score map", "predicted mask"]
    assert {picture.shape for picture in pictures.values()} == {(*SIZE, 3)}
    # JPEG at this quality moves smooth shades by a level or two on average.
    assert JPEG_QUALITY >= 85 and np.abs(pictures["image"] - expected).mean() < 3
    changed = np.abs(pictures["ground truth"].astype(float) - pictures["image"]).max(axis=2) > 60
    rows, columns = np.nonzero(judged.masks[worst])
    changed_rows, changed_columns = np.nonzero(changed)
    # The outline goes around the defect: two pixels off, two pixels wide, and JPEG blurs by one more.
    assert 0 < rows.min() - changed_rows.min() <= 5 and 0 < changed_columns.max() - columns.max() <= 5
    assert not changed[rows.min() + 2 : rows.max() - 1, columns.min() + 2 : columns.max() - 1].any()


@pytest.mark.parametrize("map_threshold", [None, 0.6])
def test_predicted_masks_are_the_positions_above_the_map_threshold(
    tmp_path: Path, judged: JudgedSet, map_threshold: float | None
) -> None:
    page = _write(tmp_path / "report.html", judged, map_threshold=map_threshold)
    above = THRESHOLD.value if map_threshold is None else map_threshold
    worst = int(np.argmin(np.where(judged.anomalous, judged.scores, np.inf)))
    mask = decode(page.cases["misses"][0].pictures["predicted mask"])
    outline = (mask == MAGENTA).all(axis=2)
    assert 0 < outline.sum() < 300
    np.testing.assert_array_equal(mask[~outline][:, 0] > 128, (judged.maps[worst] > above)[~outline])
    missed = int((judged.scores[judged.anomalous] <= THRESHOLD.value).sum())
    assert [case.verdict for case in page.cases["misses"]].count("missed") == missed  # the image's own threshold


def test_a_score_has_one_colour_on_the_whole_page(tmp_path: Path, judged: JudgedSet) -> None:
    maps = np.full_like(judged.maps, 0.5)
    maps[:, :, :32] = np.linspace(0, 3, len(maps), dtype=np.float32)[:, None, None]  # each map has another range
    page = _write(tmp_path / "report.html", replace(judged, maps=maps))
    expected = score_colours(np.array([0.5]), THRESHOLD.value, 3.0)[0]
    for case in page.cases["misses"] + page.cases["false-alarms"]:
        colours = decode(case.pictures["score map"])[:, 40:].reshape(-1, 3)  # whole JPEG blocks of one colour
        assert np.abs(colours - expected.astype(float)).max() <= 3  # rounding of JPEG's colour space


def test_the_threshold_has_the_middle_colour() -> None:
    colours = score_colours(np.array([0, 0.5, 1, 2, 3]), 1.0, 3.0).astype(int)
    blue, _, green, _, red = colours
    assert green[1] > 240 and red[0] > 100 > red[1] and blue.sum() < 150  # turbo: dark blue, green, dark red
    np.testing.assert_array_equal(score_colours(np.array([2.0]), 2.0, 9.0)[0], green)


def test_rings_mark_the_thresholds_rates(page: Page, judged: JudgedSet) -> None:
    called, anomalous = judged.scores > THRESHOLD.value, judged.anomalous
    predicted, truth = judged.maps > THRESHOLD.value, np.array(judged.masks)
    overlaps = [predicted[i][truth[i]].mean() for i in np.flatnonzero(anomalous)]  # one region in each image
    false_positive = predicted[~truth].mean()
    expected = [
        (called[~anomalous].mean(), called[anomalous].mean(), 1.0),
        (false_positive, predicted[truth].mean(), 1.0),
        (false_positive, np.mean(overlaps), 0.3),
    ]
    left, right, top, bottom = 54, 446, 22, 256  # the plot area of a chart in SVG units
    for (x, y), (rate, height, limit) in zip(page.circles, expected, strict=True):
        assert x == pytest.approx(left + (right - left) * rate / limit, abs=0.06)  # printed with one decimal
        assert y == pytest.approx(bottom - (bottom - top) * height, abs=0.06)


def test_histograms_show_how_scores_are_distributed(page: Page, judged: JudgedSet) -> None:
    truth = np.array(judged.masks)
    positions = [judged.maps[~truth], judged.maps[truth]]
    images = [judged.scores[~judged.anomalous], judged.scores[judged.anomalous]]
    for drawn, kinds, shares in ((page.filled[:2], positions, True), (page.filled[2:], images, False)):
        bins, span = len(drawn[0]), (min(k.min() for k in kinds), max(k.max() for k in kinds))
        expected = [np.histogram(kind, bins, span)[0] / (len(kind) if shares else 1) for kind in kinds]
        top = 1.08 * np.max(expected)  # the same headroom above the highest bar in every chart
        np.testing.assert_allclose(np.array(drawn) * top, expected, atol=top * 3e-4)  # a tenth of an SVG unit of 234


def test_the_figures_are_those_of_the_evaluation(page: Page, judged: JudgedSet, tmp_path: Path) -> None:
    result = evaluate_judged(judged, THRESHOLD.value)
    write_report(tmp_path / "report.html", judged, result, THRESHOLD, TITLE)
    words = Page((tmp_path / "report.html").read_text(encoding="utf-8")).words["figures"]
    for name, value in (("AUPRO", result.aupro), ("AUPRO-5", result.aupro_5), ("AUPIMO", result.aupimo)):
        assert value is not None and f" {name} {100 * value:.2f} " in words
    assert result.seg_f1 is not None and f" SegF1 {100 * result.seg_f1:.2f} " in words
    assert "AU-sPRO" not in words and "SegF1 - " in page.words["figures"]  # without a threshold of the maps
    write_report(tmp_path / "loco.html", judged, replace(result, au_spro=0.5), THRESHOLD, TITLE)
    assert " AU-sPRO-5 50.00 " in Page((tmp_path / "loco.html").read_text(encoding="utf-8")).words["figures"]


def test_hostile_names_stay_text(tmp_path: Path, judged: JudgedSet) -> None:
    path = tmp_path / "<b>evil" / HOSTILE
    path.parent.mkdir()
    path.write_bytes(judged.images[0].path.read_bytes())
    images = [LabelledImage(path, "<b>evil", None) if i.defect == "scratch" else i for i in judged.images]
    page = _write(tmp_path / "report.html", replace(judged, images=images))
    assert "script" not in page.tags and "b" not in page.tags
    assert f"<b>evil/{HOSTILE}" in page.cases["detections"][0].words
    assert text("a\udcff&") == "a?&amp;"  # a byte of a name that is no UTF-8


def test_nothing_outside_the_file_is_asked_for(tmp_path: Path, judged: JudgedSet) -> None:
    page = _write(tmp_path / "report.html", judged)
    assert page.links and all(link.startswith(("data:image/", "#")) for link in page.links)
    html = re.sub(r"data:image/[^\"]*", "", (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not re.search(r"https?:|url\(|@import|<script|<link", html)
    assert {link[1:] for link in page.links if link.startswith("#")} == set(HEADINGS)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, judged: JudgedSet) -> None:
    for name in ("a.html", "b.html"):
        _write(tmp_path / name, judged)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_has_few_and_small_pictures(tmp_path: Path) -> None:
    judged = _judged(tmp_path / "images", per_type=9, size=(320, 400), pixels=400)
    page = _write(tmp_path / "report.html", judged, rows=8)
    assert len(page.cases["misses"]) == len(page.cases["false-alarms"]) == 8 >= len(page.cases["detections"])
    for case in page.cases["misses"]:
        for uri in case.pictures.values():
            height, width, _ = decode(uri).shape
            assert height <= LARGEST[0] and width <= LARGEST[1] and abs(width / height - 400 / 320) < 0.01
    assert (tmp_path / "report.html").stat().st_size < 6 << 20


def test_without_masks_the_page_says_so(tmp_path: Path, judged: JudgedSet) -> None:
    masks = [mask if image.defect == GOOD else None for mask, image in zip(judged.masks, judged.images, strict=True)]
    page = _write(tmp_path / "report.html", replace(judged, masks=masks))
    assert list(page.cases) == list(HEADINGS)
    assert "Without ground-truth masks" in page.words["distributions"] and "PRO curve " not in page.words["curves"]
    assert "AUPRO - " in page.words["figures"] and len(page.circles) == 1
    assert all(set(case.pictures) == {"image", "score map", "predicted mask"} for case in page.cases["misses"])


def test_an_unreadable_image_is_named_and_the_old_report_stays(tmp_path: Path, judged: JudgedSet) -> None:
    report, broken = tmp_path / "report.html", tmp_path / "broken.png"
    report.write_text("old")
    broken.write_bytes(judged.images[0].path.read_bytes()[:100])
    images = [LabelledImage(broken, image.defect, None) for image in judged.images]
    with pytest.raises(UserError, match=r"broken\.png must be a whole image"):
        _write(report, replace(judged, images=images))
    assert report.read_text() == "old"


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    rng = np.random.default_rng(3)
    x, y = np.sort(rng.uniform(size=20000)) ** 3, np.sort(rng.uniform(size=20000)) ** 0.2
    thin_x, thin_y = thin(x, y)
    assert 100 < len(thin_x) <= POINTS and (thin_x[0], thin_y[0]) == (x[0], y[0])
    assert (thin_x[-1], thin_y[-1]) == (x[-1], y[-1])
    assert set(zip(thin_x, thin_y, strict=True)) <= set(zip(x, y, strict=True))
    # A rising curve inside a piece of width w and height h can hide at most w·h / 2 on either side of the chord.
    lost = np.sum(np.diff(thin_x) * np.diff(thin_y)) / 2
    assert lost < 0.005
    areas = [np.sum(np.diff(a) * (b[1:] + b[:-1]) / 2) for a, b in ((x, y), (thin_x, thin_y))]
    assert areas[0] == pytest.approx(areas[1], abs=lost)
    same_x, same_y = thin(x[:10], y[:10])
    assert (same_x == x[:10]).all() and (same_y == y[:10]).all()


def test_a_histogram_is_drawn_as_steps() -> None:
    curve = histogram_curve("good", "good", [3, 1], [0, 1, 2])
    assert curve.x.tolist() == [0, 0, 1, 1, 2, 2] and curve.y.tolist() == [0, 3, 3, 1, 1, 0]


def test_maps_without_any_difference_are_drawn(tmp_path: Path, judged: JudgedSet) -> None:
    flat = replace(judged, maps=np.zeros_like(judged.maps), scores=np.zeros_like(judged.scores))
    write_report(tmp_path / "flat.html", flat, evaluate_judged(flat), Threshold(0.0, "by hand"), TITLE)
    page = Page((tmp_path / "flat.html").read_text(encoding="utf-8"))
    assert {case.verdict for case in page.cases["misses"]} == {"missed"}
    # The one cut calls all or nothing: the curve is the diagonal, and the ring of "nothing" stands at the origin.
    last = re.findall(r'class="curve anomalous" d="([^"]+)"', (tmp_path / "flat.html").read_text())[-1].split("L")
    assert last == ["M54.0 256.0", f"{446:.1f} {256 - 0.3 * 234:.1f}"]
    assert page.circles == [(54.0, 256.0)] * 3


def test_where_no_score_reaches_the_threshold_no_colour_is_above_it(tmp_path: Path, judged: JudgedSet) -> None:
    low = replace(judged, maps=0.3 * judged.maps / judged.maps.max(), scores=0.1 * judged.scores)
    page = _write(tmp_path / "report.html", low)
    for case in page.cases["misses"]:
        assert decode(case.pictures["score map"])[..., 0].max() < 150  # in the lower half of turbo red is faint
        assert not (decode(case.pictures["predicted mask"]) > 240).all(axis=2).any()
    stops = re.search(r"linear-gradient\(90deg,([^)]+)\)", (tmp_path / "report.html").read_text())
    assert stops and len(set(stops[1].split(","))) > 30  # the legend still shows the whole colour map
