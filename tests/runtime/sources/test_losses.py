"""Frame numbers that jump, wrap, stay, fall and come late."""

import random

import pytest

from runtime.sources.losses import LATE, FrameIds


def _missing(numbers: list[int]) -> int:
    ids = FrameIds()
    return sum(ids.came(number)[0] for number in numbers) + ids.end()


def _late(numbers: list[int]) -> list[int]:
    ids = FrameIds()
    return [number for number in numbers if ids.came(number)[1]]


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [
        ([1, 2, 3], 0),
        ([860, 861, 864], 2),
        ([65534, 65535, 1, 2], 0),  # GigE Vision leaves 0 out
        ([65535, 0, 1], 0),  # a camera that does not
        ([65533, 3], 4),  # 65534, 65535, 1, 2
        ([65535, 65536, 65537], 0),  # 64 bits do not wrap there
        ([2**40, 2**40 + 2], 1),
        ([2**40, 5, 6], 0),  # counts anew
        ([500, 1, 2], 0),
        ([500, 503, 1, 2], 2),  # what was missing before that stays so
        ([7, 7, 8], 0),
        ([0, 1, 2], 0),  # USB3 Vision begins at 0
        ([65478, 65471, 65480], 1),  # late after a wait for its packets, and from before the first: 65479 alone
        ([1, 2, 5, 3, 4, 6], 0),
        ([65534, 2, 65535, 1, 3], 0),
        ([1, 1000, 3], 998),  # too late to be of this count: it begins anew
        ([1, 10**12], 10**12 - 2),
    ],
)
def test_missing_numbers_are_counted(numbers: list[int], missing: int):
    assert _missing(numbers) == missing


def test_a_late_number_is_told():
    assert _late([1, 2, 5, 3, 4, 6, 6]) == [3, 4, 6]
    assert _late([65534, 2, 65535, 1, 3]) == [65535, 1]
    assert _late([500, 1, 2]) == []


def test_a_frame_without_its_number_is_not_missing_too():
    ids = FrameIds()
    ids.came(1)
    ids.came_nameless()  # 2 or 3
    assert ids.came(4) == (0, False) and ids.end() == 1
    ids.came_nameless()
    assert ids.came(6) == (0, False) and ids.end() == 0 and ids.end() == 0


def test_a_last_frame_without_its_number_is_incomplete_beyond_all_numbers():
    ids = FrameIds()
    assert [ids.came(number) for number in (1, 2)] == [(0, False)] * 2
    ids.came_nameless()  # 3: so three frames are accounted for, and the numbers span two
    assert ids.end() == 0


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("seed", range(40))
def test_no_frame_is_counted_twice_or_left_out_where_some_lose_their_numbers(seed: int, lost: int):
    chance = random.Random(seed)
    fates = chance.choices(("came", "nameless", "lost"), (8, 3, lost), k=300)
    ids, named, nameless, missing = FrameIds(), list[int](), list[int](), 0
    for number, fate in enumerate(fates, 1):
        if fate == "came":
            named.append(number)
            missing += ids.came(number)[0]
        elif fate == "nameless":
            nameless.append(number)
            ids.came_nameless()
    counted = len(named) + len(nameless) + missing + ids.end()
    span = named[-1] - named[0] + 1
    beyond = sum(not named[0] < number < named[-1] for number in nameless)
    # one that came without its number behind the last is taken for one that was lost before, if there is any
    assert span + beyond * (not lost) <= counted <= span + beyond


def test_every_set_of_lost_frames_around_the_wrap_is_counted():
    sent = [*range(65530, 65536), *range(1, 8)]
    for lost in range(1, 2 ** (len(sent) - 2)):
        kept = [not (1 <= place < len(sent) - 1 and lost >> (place - 1) & 1) for place in range(len(sent))]
        came = [number for number, whole in zip(sent, kept, strict=True) if whole]
        assert _missing(came) == len(sent) - len(came)


@pytest.mark.parametrize("seed", range(20))
def test_lost_frames_are_counted_where_others_come_out_of_order(seed: int):
    chance = random.Random(seed)
    sent = [(65000 + place) % 65535 + 1 for place in range(2000)]
    came = [place for place in range(2000) if place in (0, 1999) or chance.random() > 0.2]
    delayed = sorted(came[1:-1], key=lambda place: place + chance.choice((0, 0, 0, LATE - 1)))
    assert _missing([sent[place] for place in (0, *delayed, 1999)]) == 2000 - len(came)
