"""Says where a source's pictures come in another way than the training images did, which moves scores."""

from collections.abc import Mapping

from runtime.common.notices import say
from runtime.images.encoding import Encoding
from runtime.images.facts import ImageFacts
from runtime.images.opencv import opencv
from runtime.sources.frame import Source

CURE = "scores can move; take training images with runtime.capture from this very source"
OPENCV = "opencv-python-headless"  # as `versions` names it


class EncodingNotes:
    """Compares each source with what training recorded: `facts` of its images, `versions` of its libraries."""

    def __init__(self, facts: ImageFacts | None, versions: Mapping[str, str]) -> None:
        self._facts = facts
        self._trained_with = versions.get(OPENCV, "")
        self._told: set[tuple[str, str, str]] = set()

    def look_at(self, source: Source) -> None:
        """Say once of each way in which the source's pictures come how training's came otherwise."""
        encoding = source.encoding
        if encoding is None or self._facts is None:
            return
        way = (source.name, encoding.codec, encoding.subsampling)
        if way in self._told:
            return
        self._told.add(way)
        if trained_on := self._facts.differs(encoding):
            say(f"note: {source.name} gives {encoding.describe()}, the model was trained on {trained_on}: {CURE}")
        elif other := self._other_decoder(encoding):
            say(f"note: {source.name} is decoded by OpenCV {other}, in training by {self._trained_with}: {CURE}")

    def _other_decoder(self, encoding: Encoding) -> str:
        """Return OpenCV's version where it decodes what comes, and is of another release than training's."""
        here = str(opencv().__version__)
        alike = _release(here) == _release(self._trained_with)
        return "" if encoding.kind == "file" or not self._trained_with or alike else here


def _release(version: str) -> list[str]:
    return version.split(".")[:2]
