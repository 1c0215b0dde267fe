"""The evaluation report as HTML: whatever comes from a file name or an option is escaped here."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from train.page.style import STYLE

# Nothing but what the file itself holds may be loaded, so that a report can be opened anywhere.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def text(value: str) -> str:
    """Return `value` safe inside an element or a quoted attribute; undecodable bytes of a file name become '?'."""
    return escape(value.encode("utf-8", "replace").decode())


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole document of `parts`, which are HTML already."""
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def section(anchor: str, heading: str, note: str, parts: Iterable[str]) -> str:
    """Return a section with a heading, a line that says what it shows, and `parts`, which are HTML already."""
    body = "\n".join(parts)
    return f'<section id="{anchor}"><h2>{text(heading)}</h2>\n<p class="note">{text(note)}</p>\n{body}</section>'


def navigation(headings: Mapping[str, str]) -> str:
    """Return links to the sections, given their headings by anchor."""
    links = (f'<a href="#{anchor}">{text(heading)}</a>' for anchor, heading in headings.items())
    return f"<nav>{' '.join(links)}</nav>"


def side_by_side(*charts: str | None) -> str:
    """Return the charts that there are, beside each other where the page is wide enough."""
    return f'<div class="charts">{"".join(chart for chart in charts if chart is not None)}</div>'


def tiles(figures: Sequence[tuple[str, str, str]]) -> str:
    """Return the few figures that matter: (name, value, what follows the value in small letters)."""
    boxes = (f"<div><dt>{text(n)}</dt><dd>{text(v)} <small>{text(s)}</small></dd></div>" for n, v, s in figures)
    return f'<dl class="tiles">{"".join(boxes)}</dl>'


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int], total: bool = False) -> str:
    """Return a table; cells are HTML already, those in the columns `numbers` stand right, the last row may be a sum."""

    def cells(tag: str, row: Sequence[str]) -> str:
        style = (' class="number"' if column in numbers else "" for column in range(len(row)))
        return "".join(f"<{tag}{s}>{cell}</{tag}>" for s, cell in zip(style, row, strict=True))

    styles = [""] * len(rows)
    if total:
        styles[-1] = ' class="total"'
    body = "\n".join(f"<tr{style}>{cells('td', row)}</tr>" for style, row in zip(styles, rows, strict=True))
    head = f"<thead><tr>{cells('th', headings)}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>\n{body}\n</tbody></table></div>'
