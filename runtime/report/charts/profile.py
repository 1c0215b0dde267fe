"""The picture of where the time goes: each profile's parts as shares of its time."""

import re

from matplotlib import colormaps
from matplotlib.figure import Figure

from runtime.report.charts import style
from runtime.report.schema import Profile, Report

# Families differ in hue, parts that follow each other in lightness.
FAMILIES = {"encoder": "Blues_r", "decoder": "Oranges_r", "upsampling": "Greens_r", "other": "Greys_r"}
NAMES = {"encoder": "encoder, by stage", "decoder": "decoders", "upsampling": "upsampling and score", "other": "other"}
LEAST_NAMED = 0.05  # of the time: a smaller part has no room for its name
Shares = dict[tuple[str, str], float]  # of the time in [0, 1], by family and part


def profile_data(profile: Profile) -> Shares:
    """Return what is drawn: the encoder by stage, each decoder's blocks together, upsampling, and all other layers."""
    total = sum(group.ms for group in profile.groups)
    shares: Shares = {}
    for group in profile.groups:
        part = _part_of(group.name)
        shares[part] = shares.get(part, 0.0) + group.ms / total
    return dict(sorted(shares.items(), key=lambda item: list(FAMILIES).index(item[0][0])))


def _part_of(group: str) -> tuple[str, str]:
    """Return a layer group's family and the name of its part."""
    family = next((family for family in FAMILIES if group.startswith(family)), "other")
    if family == "encoder":
        return family, group.removeprefix("encoder ")
    decoder = re.match(r"decoder \d+", group)
    return family, decoder[0] if decoder else family


def draw(report: Report) -> Figure | None:
    """Draw a bar for each profile, its parts as shares of the time; None without a profile."""
    profiles = [profile for profile in report.profiles if sum(group.ms for group in profile.groups) > 0]
    if not profiles:
        return None
    note = "By the engine's own per-layer profile, which itself costs time: only shares count."
    figure = style.new_figure(report, 0.42 * len(profiles), [note])
    axes = figure.subplots()
    for place, profile in enumerate(profiles):
        left, used = 0.0, dict.fromkeys(FAMILIES, 0)
        for (family, part), share in profile_data(profile).items():
            shade = colormaps[FAMILIES[family]](0.25 + 0.12 * (used[family] % 5))
            used[family] += 1
            bars = axes.barh(place, 100 * share, 0.75, left=left, color=shade, edgecolor="white")
            if share >= LEAST_NAMED:
                colour = "white" if sum(shade[:3]) < 1.7 else "black"
                text = f"{part.removeprefix('encoder ')}\n{100 * share:.0f} %"
                axes.bar_label(bars, [text], label_type="center", fontsize=style.SMALL - 1, color=colour)
            left += 100 * share
    titles = [f"{p.name} {style.size_text(p.input_size)}\n{p.engine}, {p.precision.upper()}" for p in profiles]
    axes.set_yticks(range(len(profiles)), titles, fontsize=style.SMALL)
    axes.set(xlim=(0, 100), ylim=(len(profiles) - 0.5, -0.5), xlabel="share of the time, %")
    axes.grid(visible=False, axis="y")
    keys = [style.key(name, colormaps[FAMILIES[family]](0.4), "s") for family, name in NAMES.items()]
    style.add_title(figure, "Where the time goes", keys)
    return figure
