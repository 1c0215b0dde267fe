"""What is judged of an archive: its images by name, the shard that each belongs to, and the parts of a shard."""

import argparse
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seen:
    """Which source of which run took a frame, by the inspection log at `log`: by its mask the frame is judged."""

    log: str
    run: str
    recipe: str
    source: str


@dataclass(frozen=True, slots=True)
class Item:
    """One image of an archive.

    `name` is its own within the archive, `place` a path or a URL. In a tar it is the `size` bytes from `offset` on. A
    `fault` that was found when the archive was listed is why it cannot be judged.
    """

    name: str
    place: str
    offset: int = 0
    size: int | None = None
    seen: Seen | None = None
    fault: str = ""


@dataclass(frozen=True)
class Shard:
    """The shard `number`, 1 to `count`: every image belongs to exactly one of them, by its name alone."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read "2/16". Raises `argparse.ArgumentTypeError` for anything else."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            wanted = "I/N with I from 1 to N, such as 1/16 for the first of 16"
            raise argparse.ArgumentTypeError(f"expected {wanted}, found {text!r}")
        return cls(int(found[1]), int(found[2]))

    @property
    def stem(self) -> str:
        """What its files are called."""
        return f"{self.number:06d}-of-{self.count:06d}"

    def __contains__(self, name: str) -> bool:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


WHOLE = Shard()


@dataclass(frozen=True)
class Part:
    """Images that one worker judges in one go, and whose rows appear together."""

    items: tuple[Item, ...]

    @property
    def stem(self) -> str:
        """What its file is called: the same for the same images, and for those only."""
        digest = hashlib.sha256()
        for item in self.items:
            digest.update(item.name.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()[:32]


def parts_of(items: Sequence[Item], size: int) -> list[Part]:
    """Return `items` as parts of `size`, the last one with what is left.

    Where whole parts are taken away, what remains comes as the same parts as before: so a run that goes on writes the
    very files that the run before it would have written.
    """
    return [Part(tuple(items[start : start + size])) for start in range(0, len(items), size)]


def each_once(items: Iterable[Item]) -> list[Item]:
    """Return the items by name; of several with one name (a tar may have them) the later ones are NAME#2, NAME#3."""
    found: dict[str, Item] = {}
    for item in items:
        name, number = item.name, 1
        while name in found:
            number += 1
            name = f"{item.name}#{number}"
        found[name] = item if number == 1 else Item(name, item.place, item.offset, item.size, item.seen, item.fault)
    return [found[name] for name in sorted(found)]
