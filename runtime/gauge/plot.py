"""The plot of a gauge study, as one SVG file: every score by part, a colour for each operator."""

from html import escape

from runtime.gauge.table import Study

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 760, 360, 64, 48, 56, 16
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")  # told apart by colour-blind people
TICKS = 5


def plot(study: Study, title: str, threshold: float | None) -> str:
    """Return the SVG text: dots are scores, a bar is the mean of an operator's; the line is the `threshold`."""
    low, high = float(study.scores.min()), float(study.scores.max())
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    low, high = (low - 0.5, high + 0.5) if low == high else (low - 0.05 * (high - low), high + 0.05 * (high - low))

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    step = (WIDTH - LEFT - RIGHT) / len(study.parts)
    pieces = [_text(LEFT, 20, title, "start", 15)]
    for i in range(TICKS):
        value = low + (high - low) * i / (TICKS - 1)
        pieces.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        pieces.append(_text(LEFT - 6, y(value) + 4, f"{value:.3g}", "end"))
    every = -(-len(study.parts) // 20)
    for i, part in enumerate(study.parts):
        if i % every == 0:
            pieces.append(_text(LEFT + step * (i + 0.5), HEIGHT - BOTTOM + 18, part[:12], "middle"))
    pieces.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, HEIGHT - 12, "part", "middle"))
    wide = step / (len(study.operators) + 1)
    for j, operator in enumerate(study.operators):
        colour = COLOURS[j % len(COLOURS)]
        for i in range(len(study.parts)):
            x = LEFT + step * i + wide * (j + 1)
            values = study.scores[i, j]
            pieces += [f'<circle cx="{x:.1f}" cy="{y(v):.1f}" r="3" fill="{colour}" opacity=".7"/>' for v in values]
            half, mean = wide * 0.4, y(float(values.mean()))
            pieces.append(f'<path d="M{x - half:.1f} {mean:.1f}H{x + half:.1f}" stroke="{colour}" stroke-width="2"/>')
        if len(study.operators) > 1:
            pieces.append(f'<circle cx="{LEFT + 6 + 110 * j}" cy="36" r="4" fill="{colour}"/>')
            pieces.append(_text(LEFT + 14 + 110 * j, 40, operator[:14], "start"))
    if threshold is not None:
        pieces.append(f'<path d="M{LEFT} {y(threshold):.1f}H{WIDTH - RIGHT}" stroke="#b00" stroke-dasharray="6 4"/>')
        pieces.append(_text(WIDTH - RIGHT, y(threshold) - 5, "threshold", "end"))
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
    return frame + '<rect width="100%" height="100%" fill="#fff"/>' + "".join(pieces) + "</svg>\n"


def _text(x: float, y: float, text: str, anchor: str, size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'
