"""What the training images are like as pictures, for the line to hold its frames against (`runtime.images.facts`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from runtime.common.notices import say
from runtime.images.encoding import encoding_of
from runtime.images.facts import ImageFacts, blank, measure
from runtime.images.folders import evenly_spread
from runtime.images.pixels import Image8
from runtime.images.preprocess import ReadOptions, read_image

MOST = 200  # images, spread evenly: their extremes are known well enough, and they are read once more for this


def facts_of(paths: Sequence[Path], read: ReadOptions) -> ImageFacts:
    """Measure good images as they are in their files. Raises `ValueError` for none."""
    chosen = [paths[index] for index in evenly_spread(len(paths), MOST)]
    blanks: dict[Path, str] = {}
    facts = ImageFacts.of(_pictures(chosen, read, blanks), map(encoding_of, chosen))
    if blanks:
        path, reason = next(iter(blanks.items()))
        say(f"{len(blanks)} training images show nothing: {path} ({reason}), ...; remove them and train again")
    return facts


def _pictures(paths: Sequence[Path], read: ReadOptions, blanks: dict[Path, str]) -> Iterator[Image8]:
    """Yield the images that show something; the others, with the reason, go into `blanks`.

    A black picture among the good ones would make every dark frame one like those of training. Where none shows
    anything all are yielded, at the end.
    """
    for path in paths:
        image = read_image(path, read)
        if reason := blank(image, measure(image)):
            blanks[path] = reason
        else:
            yield image
    if len(blanks) == len(paths):
        yield from (read_image(path, read) for path in paths)
