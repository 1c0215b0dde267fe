"""The picture of where the time goes: each profile's parts as shares of its time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runtime.report.charts.names import default_engine, notes, size_text, variant
from runtime.report.charts.style import GREEN, GREY, INK, MARGIN, SMALL, SOFT, TEXT, WIDTH, Key, Sheet, plain_ticks
from runtime.report.charts.text import shortened, text_width
from runtime.report.schema import Profile, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BAR, _STEP = 26.0, 38.0  # points: a bar's height, and from one bar to the next
_TOP, _BELOW = 2.0, 36.0
_WIDEST_LABEL = 170.0
_PADDING = 3.0  # points that must be free around a part's name for it to be written
_DECODER = re.compile(r"decoder( \d+)?")
# Families differ in hue, parts that follow each other in lightness.
_SHADES = {
    "encoder": ("#0b3c5d", "#1f6396", "#4189bf", "#75b0da", "#a9d0ea"),
    "decoder": ("#9c3d00", "#cc6210", "#e88f3c", "#f5b97a"),
    "upsampling": (GREEN,),
    "other": (GREY,),
}
_NAMES = {"encoder": "encoder, by stage", "decoder": "decoders", "upsampling": "upsampling and score", "other": "other"}
_WHITE_ON = ("#0b3c5d", "#1f6396", "#9c3d00", "#cc6210", GREEN)


@dataclass(frozen=True)
class Part:
    """A part of a network and its share of the profile's time, in [0, 1]."""

    family: str
    name: str
    share: float


@dataclass(frozen=True)
class Bar:
    """One profile: its model, a second line of that, and its parts in the order of drawing."""

    label: str
    under: str
    parts: tuple[Part, ...]

    def share(self, family: str) -> float:
        """Return what a family's parts take together."""
        return sum(part.share for part in self.parts if part.family == family)


def profile_data(report: Report) -> list[Bar]:
    """Return what is drawn: the encoder by stage, each decoder's blocks together, upsampling, and all other layers."""
    return [_bar(profile, default_engine(report)) for profile in report.profiles if _total_ms(profile) > 0]


def _total_ms(profile: Profile) -> float:
    return sum(group.ms for group in profile.groups)


def _bar(profile: Profile, default: str) -> Bar:
    total, shares = _total_ms(profile), dict[tuple[str, str], float]()
    for group in profile.groups:
        part = _part_of(group.name)
        shares[part] = shares.get(part, 0.0) + group.ms / total
    # Sorting keeps an encoder's stages in their order; decoders come by number.
    ordered = sorted(shares, key=lambda part: (list(_SHADES).index(part[0]), _decoder_number(part)))
    under = ", ".join((size_text(profile.input_size), *variant(profile.precision, profile.engine, default)))
    return Bar(profile.name, under, tuple(Part(*part, shares[part]) for part in ordered))


def _part_of(group: str) -> tuple[str, str]:
    """Return a layer group's family and the name of its part."""
    if group.startswith("encoder"):
        return "encoder", group.removeprefix("encoder").strip() or "encoder"
    if decoder := _DECODER.match(group):
        return "decoder", decoder[0]
    return ("upsampling", "upsampling") if group.startswith("upsampl") else ("other", "other")


def _decoder_number(part: tuple[str, str]) -> int:
    return int(_digits(part[1]) or 0) if part[0] == "decoder" else 0


def draw_profile(report: Report) -> Sheet | None:
    """Draw a bar for each profile, its parts as shares of the time; None without a profile."""
    bars = profile_data(report)
    if not bars:
        return None
    families = [family for family in _SHADES if any(bar.share(family) for bar in bars)]
    keys = [Key(_NAMES[family], _SHADES[family][len(_SHADES[family]) // 2]) for family in families]
    height = _STEP * len(bars)
    subtitle = (
        "Shares of one frame's time by the engine's own per-layer profile, which itself costs time: only shares count."
    )
    sheet = Sheet(_title(bars), subtitle, keys, _TOP + height + _BELOW, notes(report))
    widths = [text_width(bar.label, TEXT) for bar in bars] + [text_width(bar.under, SMALL) for bar in bars]
    label = min(max(widths), _WIDEST_LABEL)
    left = MARGIN + label + 10
    axes = sheet.axes(left, _TOP, WIDTH - MARGIN - left - 10, height)
    _set_up(axes, height)
    for place, bar in enumerate(bars):
        middle = (place + 0.5) * _STEP
        sheet.text(left - 8, _TOP + middle - 6, shortened(bar.label, TEXT, label), ha="right", va="center")
        under = shortened(bar.under, SMALL, label)
        sheet.text(left - 8, _TOP + middle + 6, under, SMALL, color=SOFT, ha="right", va="center")
        _draw_bar(axes, bar, middle)
    return sheet


def _title(bars: Sequence[Bar]) -> str:
    shares = [100 * bar.share("decoder") for bar in bars]
    low, high = f"{min(shares):.0f}", f"{max(shares):.0f}"
    return f"The decoders take {low if low == high else f'{low} to {high}'} % of the time"


def _set_up(axes: "Axes", height: float) -> None:
    axes.set_xlim(0, 100)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("share of the time, %")
    plain_ticks(axes.xaxis, range(0, 101, 20))


def _draw_bar(axes: "Axes", bar: Bar, middle: float) -> None:
    per_percent = axes.get_window_extent().width / 100
    start, used = 0.0, dict.fromkeys(_SHADES, 0)
    for part in bar.parts:
        shades = _SHADES[part.family]
        colour = shades[used[part.family] % len(shades)]
        used[part.family] += 1
        width = 100 * part.share
        axes.barh(middle, width, _BAR, left=start, color=colour, edgecolor="white", linewidth=0.8)
        style: dict[str, Any] = {"fontsize": SMALL, "ha": "center", "va": "center", "linespacing": 1.15}
        letters = "white" if colour in _WHITE_ON else INK
        axes.text(start + width / 2, middle, _fitting(part, width * per_percent), color=letters, **style)
        start += width


def _fitting(part: Part, room: float) -> str:
    """Return a part's name and share, or its number alone, or nothing, whichever fits into `room` points."""
    for text in (f"{part.name}\n{100 * part.share:.0f} %", _digits(part.name)):
        if max(text_width(line, SMALL) for line in text.split("\n")) + _PADDING <= room:
            return text
    return ""


def _digits(name: str) -> str:
    return name[len(name.rstrip("0123456789")) :]
