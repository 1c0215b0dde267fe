"""An evaluation report read back from its HTML: sections, cases, pictures, drawn points."""

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "img"}  # elements of the page that are never closed


@dataclass
class Case:
    """One judged image as the page shows it."""

    words: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)  # data URIs by what they show

    @property
    def verdict(self) -> str:
        return self.words[0]

    @property
    def score(self) -> float:
        return float(self.words[1])


class Page(HTMLParser):
    """The page taken apart; raises where an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.circles: list[tuple[float, float]] = []
        self.filled: list[list[float]] = []  # heights of the steps of each histogram, as shares of the plot area
        self.cases: dict[str, list[Case]] = {}
        self.words: dict[str, str] = {}
        self.section = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.tags.add(tag)
        self.links += [values[name] for name in ("src", "href", "action", "data", "srcset") if name in values]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = values["id"]
            self.cases[self.section], self.words[self.section] = [], ""
        elif tag == "article":
            self.cases[self.section].append(Case())
        elif tag == "img":
            self.cases[self.section][-1].pictures[values["alt"].split(" of ")[0]] = values["src"]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if "filled" in (values.get("class") or ""):
            heights = [float(point.split()[1]) for point in (values["d"] or "")[1:].split("L")]
            self.filled.append([(256 - y) / 234 for y in heights[1:-1:2]])
        if tag == "circle":
            self.circles.append((float(values["cx"] or ""), float(values["cy"] or "")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.section and data.strip():
            self.words[self.section] += f" {data.strip()}"
            if "article" in self.open:
                self.cases[self.section][-1].words.append(data.strip())


def decode(uri: str) -> np.ndarray:
    kind, data = re.fullmatch(r"data:image/(jpeg|png);base64,(.+)", uri).groups()
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.format == kind.upper()
        return np.asarray(image.convert("RGB"))
