"""Texts of the pictures: how wide they are, how they are broken and shortened, and how numbers are written."""


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of `text` in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(
        text, FontProperties(size=size, weight=weight), ismath=False
    )
    return float(width)


def shortened(text: str, size: float, room: float) -> str:
    """Return `text`, or as much of its two ends as fits into `room` points."""
    kept = len(text)
    short = text
    while kept > 2 and text_width(short, size) > room:
        kept -= 1
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return short


def number(value: float) -> str:
    """Return `value` with three digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def wrapped(text: str, size: float, room: float, weight: str = "normal") -> list[str]:
    """Return `text` as lines of at most `room` points, broken between words."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, weight) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
