"""Tables of the report of a period."""

from collections.abc import Sequence


class Number(str):
    """A cell to the right."""

    @classmethod
    def of(cls, count: int) -> "Number":
        """Return a count as people read it."""
        return cls(f"{count:,}")


def table_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of at least one row; cells are HTML already."""
    numbers = [isinstance(cell, Number) for cell in rows[0]]
    heads = "".join(f"<th{' class=n' * number}>{name}</th>" for name, number in zip(head, numbers, strict=True))
    lines = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table>"


def _cell(text: str) -> str:
    return f'<td class="n">{text}</td>' if isinstance(text, Number) else f"<td>{text}</td>"
