"""Damage that Pillow reads over: its decoders fill the rest of a picture with anything, and raise nothing.

With 64 random bytes at a random place behind the headers, 100 files of each kind (256 x 256; `tests/.../test_damage.py`
repeats it), this many are found:

    PNG 100, TIFF with ZIP 100, with LZW 98: they have checksums, or codes that are not to be
    TIFF with JPEG 90, JPEG 84 (Pillow alone 15 to 25), with restart marks 85, progressive 79: by a second, strict
        decode at an eighth of the size; in the others the random bytes happen to be as many blocks as were there
    WebP 28, lossless 12: it has neither checksums nor marks, and any bytes decode to something
    PNG whose pixels end early: all, Pillow fills the rest with black
    BMP and uncompressed TIFF 0: random bytes are random pixels

Where damage must not pass, let cameras write PNG.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from runtime.common.errors import UserError
from runtime.images import png

JPEG_FORMATS = frozenset({"JPEG", "MPO"})
COMPRESSION_TAG, JPEG_TABLES_TAG = 259, 347
STRIPS, TILES = (273, 279), (324, 325)  # tags: where they begin, how long they are
ZIP, JPEG_IN_TIFF = frozenset({8, 32946}), 7
SMALL = 8  # reads every bit and computes hardly a pixel
INK = frozenset({"CMYK", "YCCK"})


def check_promises(image: Image.Image, source: str | Path | BinaryIO) -> None:
    """Raise `UserError` where an image that is only open cannot hold what its header promises."""
    if image.format == "PNG":
        png.check_promise(*_beginning(source, png.HEADER.size))


def check_streams(image: Image.Image, source: str | Path | BinaryIO) -> None:
    """Raise `UserError` where a compressed part of an image that Pillow has read is damaged; `source` is its file."""
    if image.format in JPEG_FORMATS:
        _check_jpeg(_content(source))
    elif image.format == "PNG":
        png.check_pixels(image, lambda: _content(source))
    elif image.format == "TIFF" and (check := _check_of(getattr(image, "tag_v2", {}))):
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        for part in _parts(tags, _content(source)):
            check(part)


def _beginning(source: str | Path | BinaryIO, count: int) -> tuple[bytes, int]:
    """Return the first `count` bytes of a file, and how many it has."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as file:
            return file.read(count), Path(source).stat().st_size
    place, size = source.tell(), source.seek(0, 2)
    source.seek(0)
    head = source.read(count)
    source.seek(place)  # Pillow may be in the middle of it
    return head, size


def _content(source: str | Path | BinaryIO) -> bytes:
    if isinstance(source, str | Path):
        return Path(source).read_bytes()
    place = source.tell()
    source.seek(0)
    content = source.read()
    source.seek(place)  # Pillow may be in the middle of it
    return content


def _check_of(tags: Any) -> Callable[[bytes], None] | None:
    compression = tags.get(COMPRESSION_TAG)
    if compression in ZIP:
        return _check_zip
    if compression != JPEG_IN_TIFF:
        return None
    tables = tags.get(JPEG_TABLES_TAG, b"")
    return lambda part: _check_jpeg(tables[:-2] + part[2:] if tables else part)  # less the end mark and the start mark


def _parts(tags: Any, content: bytes) -> Iterator[bytes]:
    offsets, lengths = next((kind for kind in (STRIPS, TILES) if kind[0] in tags), STRIPS)
    for offset, length in zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False):
        yield content[offset : offset + length]


def _check_zip(part: bytes) -> None:
    stream = zlib.decompressobj()
    try:
        while part:  # a piece at a time, so that a small part cannot ask for much memory
            stream.decompress(part, 1 << 20)
            part = stream.unconsumed_tail
    except zlib.error as error:
        raise _damaged(error) from None


def _check_jpeg(content: bytes) -> None:
    import simplejpeg  # here: most programs meet no JPEG, and it looks through the installed packages

    try:
        colours = simplejpeg.decode_jpeg_header(content, strict=False)[2]
    except ValueError:  # a kind (of subsampling) that Pillow reads and this decoder does not
        return
    try:
        simplejpeg.decode_jpeg(
            content, "CMYK" if colours in INK else "GRAY", min_factor=SMALL, min_height=1, min_width=1, strict=True
        )
    except ValueError as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> UserError:
    return UserError("an image must be whole", f"damage ({error})", "replace or remove the file")
