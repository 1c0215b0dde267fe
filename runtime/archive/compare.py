"""What another engine changes: the rows of one archive by two of them, image by image."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.archive.merge import whole_shards
from runtime.archive.table import heading_of, read_table
from runtime.common.errors import UserError
from runtime.common.files import whole_file
from runtime.common.notices import escaped
from runtime.common.text_table import align, number
from runtime.result import VERDICTS

if TYPE_CHECKING:
    import pyarrow as pa

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
COMPARED = ("name", "score", "threshold", "verdict", "image_sha256")
SHORT = 12  # digits of a hash that a person is shown
BY_THRESHOLD = "score / threshold"


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two: where its rows lie, by what they were judged, and what is compared of them."""

    place: Path
    facts: dict[str, Any]
    table: "pa.Table"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The images of both sides, matched by name; the `worst` ones are shown.

    `both` has a row for each image of either side: columns "name", and of each side "a_score", "a_verdict", ...
    """

    a: Side
    b: Side
    both: "pa.Table"
    worst: int

    def _column(self, name: str) -> NDArray[Any]:
        column: NDArray[Any] = self.both[name].to_numpy()
        return column

    @cached_property
    def _in_both(self) -> NDArray[np.bool_]:
        """(n,) whether an image is the same one on both sides, to the byte."""
        same = self._column("a_image_sha256") == self._column("b_image_sha256")
        return np.asarray(same & ~self._only("a") & ~self._only("b"), bool)

    def _only(self, side: str) -> NDArray[np.bool_]:
        other = "b" if side == "a" else "a"
        return np.asarray(self.both[f"{other}_verdict"].is_null())

    @cached_property
    def _ratios(self) -> NDArray[np.float64]:
        """(n,) by how much score / threshold rises from A to B; NaN where there is no score."""
        return self._rise(lambda side: self._numbers(f"{side}_score") / self._scale(side))

    @cached_property
    def _scores(self) -> NDArray[np.float64]:
        return self._rise(lambda side: self._numbers(f"{side}_score"))

    def _rise(self, of: Any) -> NDArray[np.float64]:
        return np.where(self._in_both, of("b") - of("a"), np.nan)

    def _scale(self, side: str) -> NDArray[np.float64]:
        thresholds = self._numbers(f"{side}_threshold")
        return np.where(thresholds > 0, thresholds, 1.0)

    def _numbers(self, name: str) -> NDArray[np.float64]:
        return np.asarray(self._column(name), np.float64)

    def verdicts(self) -> dict[str, dict[str, int]]:
        """Return how many images have which verdict on side A, and of those on side B."""
        a, b = (self._column(f"{side}_verdict")[self._in_both] for side in "ab")
        return {of_a: {of_b: int(((a == of_a) & (b == of_b)).sum()) for of_b in VERDICTS} for of_a in VERDICTS}

    def changed(self) -> list[dict[str, Any]]:
        """Return the images whose verdict changed, those whose score / threshold changed most first."""
        differ = self._in_both & (self._column("a_verdict") != self._column("b_verdict"))
        return self._rows(differ)

    def largest(self) -> list[dict[str, Any]]:
        """Return the images whose score / threshold changed most."""
        return self._rows(np.isfinite(self._ratios) & (self._ratios != 0))

    def only(self, side: str) -> list[str]:
        """Return the images that are on the side "a" or "b" alone."""
        names: list[str] = sorted(self._column("name")[self._only(side)])
        return names

    def others(self) -> list[str]:
        """Return the images that are another picture on each side, or could not be read there; they do not count."""
        names: list[str] = sorted(self._column("name")[~self._in_both & ~self._only("a") & ~self._only("b")])
        return names

    def _rows(self, which: NDArray[np.bool_]) -> list[dict[str, Any]]:
        places = np.flatnonzero(which)
        size = np.nan_to_num(np.abs(self._ratios[places]), nan=np.inf)  # where one side has no score at all
        names = self._column("name")
        order = sorted(range(len(places)), key=lambda at: (-size[at], names[places[at]]))
        chosen = places[np.array(order[: self.worst], np.int64)]
        rows: list[dict[str, Any]] = self.both.take(chosen).to_pylist()
        return [
            {name: value for name, value in row.items() if not name.endswith("sha256")} | {"rise": _finite(rise)}
            for row, rise in zip(rows, self._ratios[chosen], strict=True)
        ]

    @property
    def changes(self) -> int:
        """How many verdicts changed."""
        table = self.verdicts()
        return sum(table[a][b] for a in VERDICTS for b in VERDICTS if a != b)

    def quantiles(self) -> dict[str, list[float]]:
        """Return the `QUANTILES` of what score and score / threshold rise by; empty where no image has both."""
        found = {"score": self._scores, BY_THRESHOLD: self._ratios}
        known = {name: rise[np.isfinite(rise)] for name, rise in found.items()}
        return {name: np.quantile(rise, QUANTILES).tolist() if len(rise) else [] for name, rise in known.items()}

    def fields(self) -> dict[str, Any]:
        """Return it for JSON; of images at most the `worst`."""
        return {
            "a": {"place": str(self.a.place), **self.a.facts},
            "b": {"place": str(self.b.place), **self.b.facts},
            "compared": int(self._in_both.sum()),
            "only_a": self.only("a")[: self.worst],
            "only_b": self.only("b")[: self.worst],
            "others": self.others()[: self.worst],
            "counts": {"only_a": len(self.only("a")), "only_b": len(self.only("b")), "others": len(self.others())},
            "verdicts": self.verdicts(),
            "changes": self.changes,
            "quantiles": {"of": list(QUANTILES), **self.quantiles()},
            "changed": self.changed(),
            "largest": self.largest(),
        }

    def text(self) -> str:
        """Return it for a person."""
        lines = [f"{letter}: {_side(side)}" for letter, side in (("A", self.a), ("B", self.b))]
        lines.append(f"{int(self._in_both.sum())} images compared, {self.changes} verdicts changed")
        for what, names in (
            ("only in A", self.only("a")),
            ("only in B", self.only("b")),
            ("another picture in A and B, or not read", self.others()),
        ):
            if names:
                shown = ", ".join(map(escaped, names[: self.worst])) + (", ..." if names[self.worst :] else "")
                lines.append(f"{what}: {len(names)}: {shown}")
        table = self.verdicts()
        lines += ["", align([["A \\ B", *VERDICTS], *([a, *(str(table[a][b]) for b in VERDICTS)] for a in VERDICTS)])]
        head = ["B - A", *("least" if at == 0 else "most" if at == 1 else f"{at:.0%}" for at in QUANTILES)]
        rises = [[name, *(number(value, 4) for value in values)] for name, values in self.quantiles().items() if values]
        lines += ["", align([head, *rises])] if rises else []
        for what, rows in (("verdict changed", self.changed()), ("largest change", self.largest())):
            if rows:
                lines += ["", align([[what, "A", "score", "B", "score", "by threshold"], *map(_row, rows)])]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write a row for each image of either side as Parquet, whole or not at all."""
        import pyarrow as pa
        from pyarrow import parquet

        table = self.both.append_column("rise", pa.array(self._ratios, from_pandas=True)).sort_by("name")
        with whole_file(path) as temporary:
            parquet.write_table(table, temporary)


def compare(a: Path, b: Path, worst: int) -> Comparison:
    """Compare two folders of scores, or merged files.

    Raises `UserError` for what is none of them, or is of two archives.
    """
    sides = [_opened(place) for place in (a, b)]
    archives = [side.facts["archive"] for side in sides]
    if archives[0] != archives[1]:
        raise UserError(f"{b} must be of the same archive as {a}, {archives[0]}", f"{archives[1]}", "judge that one")
    renamed = [
        side.table.rename_columns(["name", *(f"{letter}_{column}" for column in COMPARED[1:])])
        for side, letter in zip(sides, "ab", strict=True)
    ]
    both = renamed[0].join(renamed[1], "name", join_type="full outer").combine_chunks()
    return Comparison(sides[0], sides[1], both, worst)


def _opened(place: Path) -> Side:
    files = whole_shards(place) if place.is_dir() else [place]
    if not files[0].is_file():
        raise UserError(f"{place} must be a folder of scores or a merged file", "no such file", "check the path")
    import pyarrow as pa

    facts = heading_of(files[0]).identity.facts
    table = pa.concat_tables([read_table(file, COMPARED) for file in files]).select(list(COMPARED))
    return Side(place, facts, table)


def _side(side: Side) -> str:
    facts = side.facts
    engine = f"{facts['engine']} {facts['engine_sha256'][:SHORT]}, threshold {facts['threshold']:.4f}"
    return f"{side.place}: {engine}, {facts['device']}, {side.table.num_rows} images"


def _row(row: dict[str, Any]) -> list[str]:
    said = [part for side in "ab" for part in (row[f"{side}_verdict"], number(row[f"{side}_score"], 4))]
    return [escaped(row["name"]), *said, number(row["rise"], 4)]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
