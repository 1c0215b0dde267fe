"""Frame numbers that jump, wrap, stay and fall."""

import pytest

from runtime.sources.losses import FrameIds


def _missing(numbers: list[int]) -> list[int]:
    ids = FrameIds()
    return [ids.missing_before(number) for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([1, 2, 3], [0, 0, 0]),
        ([860, 861, 864], [0, 0, 2]),
        ([65534, 65535, 1, 2], [0, 0, 0, 0]),  # GigE Vision leaves 0 out
        ([65535, 0, 1], [0, 0, 0]),  # a camera that does not
        ([65533, 3], [0, 4]),  # 65534, 65535, 1, 2
        ([65535, 65536, 65537], [0, 0, 0]),  # 64 bits do not wrap there
        ([2**40, 2**40 + 2], [0, 1]),
        ([2**40, 5], [0, 0]),  # counts anew
        ([500, 1, 2], [0, 0, 0]),
        ([7, 7, 8], [0, 0, 0]),
        ([0, 1, 2], [0, 0, 0]),  # USB3 Vision begins at 0
    ],
)
def test_missing_numbers_are_counted(numbers: list[int], missing: list[int]):
    assert _missing(numbers) == missing


def test_every_set_of_lost_frames_around_the_wrap_is_counted():
    sent = [*range(65530, 65536), *range(1, 8)]
    for lost in range(1, 2 ** (len(sent) - 2)):
        came = [
            number for place, number in enumerate(sent) if not (1 <= place < len(sent) - 1 and lost >> place - 1 & 1)
        ]
        assert sum(_missing(came)) == len(sent) - len(came)
