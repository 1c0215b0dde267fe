"""Tables of plain text for the terminal."""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows of as many cells each as lines with aligned columns, the first `left` of them to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths, left) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = (
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join(cells).rstrip()


def number(value: float | None, digits: int) -> str:
    """Return a number with so many decimals, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """Return a figure in percent with two decimals, a dash where there is none."""
    return number(value, 2)


def plain_size(size: tuple[int, int]) -> str:
    """Return a (height, width) as it is written everywhere."""
    return f"{size[0]}x{size[1]}"
