"""Which shard and which part an image belongs to: by its name alone, to one of each, all of them."""

import argparse
import subprocess
import sys

import numpy as np
import pytest

from runtime.archive.items import Item, Shard, each_once, parts_of
from tests.support.paths import ROOT


def _names(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return sorted(
        {f"{rng.integers(9)}/{rng.integers(10**6)}.png" for _ in range(rng.integers(1, 3000))} | {"ä", "\udce9"}
    )


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2, 3, 16, 97])
def test_each_image_belongs_to_exactly_one_shard(seed: int, count: int):
    names = _names(seed)
    shards = [[name for name in names if name in Shard(number, count)] for number in range(1, count + 1)]
    assert sorted(name for shard in shards for name in shard) == names  # all of them, none twice
    expected = len(names) / count
    # binomial: six of its standard deviations, which one shard of a thousand millions would exceed
    assert all(abs(len(shard) - expected) <= 6 * expected**0.5 + 6 for shard in shards)


def test_an_image_stays_in_its_shard_when_others_come_and_in_other_processes():
    names = _names(3)
    few, many = names[::5], names
    in_few = {name for name in few if name in Shard(2, 5)}
    assert in_few == {name for name in many if name in Shard(2, 5)} & set(few)
    program = "from runtime.archive.items import Shard; print([n for n in range(60) if str(n) in Shard(3, 7)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{[number for number in range(60) if str(number) in Shard(3, 7)]}\n"}


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "1", "1/", "/4", "a/b", "1/4/2", "-1/4", "²/4", "1 / 4"])
def test_what_is_no_shard_is_refused(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="I/N with I from 1 to N"):
        Shard.parse(text)
    assert Shard.parse("3/16") == Shard(3, 16)


def test_what_is_left_comes_as_the_parts_that_were_left():
    items = [Item(f"{number:03d}", "") for number in range(103)]
    parts = parts_of(items, 10)
    assert [len(part.items) for part in parts] == [10] * 10 + [3]
    rng = np.random.default_rng(0)
    for _ in range(20):
        done = set(rng.choice(11, rng.integers(0, 11), replace=False).tolist())
        kept = {item.name for place in done for item in parts[place].items}
        left = parts_of([item for item in items if item.name not in kept], 10)
        assert [part.stem for part in left] == [part.stem for place, part in enumerate(parts) if place not in done]


def test_two_images_of_one_name_keep_both():
    items = [Item("b", "x", 1), Item("a", "x", 2), Item("b", "x", 3), Item("b", "x", 4), Item("b#2", "x", 5)]
    found = [(item.name, item.offset) for item in each_once(items)]
    assert found == [("a", 2), ("b", 1), ("b#2", 3), ("b#2#2", 5), ("b#3", 4)]
