"""Slices of last levels: the published functions, what all such hashes have in common, and whole machines."""

import msgspec
import numpy as np
import pytest

from pagewalk.hardware.load import build, load, names
from pagewalk.hardware.machine import Cache
from pagewalk.hardware.slices import set_of, slices_of
from reference_caches import slice_of


def level(slices, sets=2048, ways=16, **more):
    size = slices * sets * ways * 64
    return Cache(name="L3", size_bytes=size, ways=ways, latency_cycles=40, slice_sets=sets, **more)


def lines(count, stride_bytes, start=0):
    return start // 64 + np.arange(count, dtype=np.int64) * stride_bytes // 64


@pytest.mark.parametrize("slices", [1, 2, 3, 4, 6, 8, 10, 16, 18, 28, 60])
def test_every_line_lies_where_a_plain_reading_of_the_rule_puts_it(slices):
    cache = level(slices)
    known = np.random.default_rng(slices).integers(0, 1 << 57, 400) >> np.arange(400) % 50
    plain = [
        slice_of(line, 64, slices) * 2048 + line % 2048 if slices > 1 else line % 2048
        for line in known.tolist()
    ]
    assert set_of(cache, known).tolist() == plain
    assert max(plain) < slices * 2048


def test_the_published_functions_by_their_lowest_bits():
    """Maurice et al. 2015: o0 begins with b6 ^ b10, o1 with b7 ^ b11, o2 with b8 ^ b12; b9 is in none."""
    slice_at = [int(set_of(level(8), np.array([1 << bit - 6]))[0]) // 2048 for bit in range(6, 13)]
    assert slice_at == [1, 2, 4, 0, 1, 2, 1 + 4]


@pytest.mark.parametrize("slices", [2, 4, 8, 6, 10, 14, 18, 20, 28, 40, 56])
@pytest.mark.parametrize("stride", [64, 4096, 8192, 16384, 1 << 17, 1 << 21])
def test_lines_at_any_stride_of_a_power_of_two_spread_evenly(slices, stride):
    """What the hash is for (McCalpin 2021); the published functions end at bit 37."""
    count = 4096
    held = np.bincount(set_of(level(slices), lines(count, stride)) // 2048, minlength=slices)
    assert held.min() > 0.85 * count / slices
    assert held.max() < 1.15 * count / slices


def test_a_level_in_one_piece_piles_up_what_slices_spread():
    """Lines every 2 MiB: a 32 MiB level of 16 ways in one piece has one set for them."""
    far = lines(256, 1 << 21)
    assert len(np.unique(set_of(msgspec.structs.replace(level(16), slice_sets=0), far))) == 1
    assert len(np.unique(set_of(level(16), far))) == 16


def test_sizes_that_are_no_whole_number_of_slices_have_smaller_ones():
    odd = msgspec.structs.replace(level(6), size_bytes=5 * 1024 * 16 * 64)
    assert slices_of(odd) == 5
    assert len(np.unique(set_of(odd, np.arange(1 << 16)))) == 5 * 1024


def test_another_size_of_a_preset_is_another_number_of_its_slices():
    """Ten slices of 1408 KiB: what a file that extends the preset says of an i9-7900X."""
    content = {"extends": "intel-skylake-sp", "cache": [{"name": "L3", "size_bytes": 10 * 1408 << 10}]}
    assert slices_of(build(content, "mine", "mine").cache[-1]) == 10
    assert slices_of(load("intel-skylake-sp").cache[-1]) == 18


SLICED = {
    "intel-haswell-ep": 6,
    "intel-skylake-client": 8,
    "intel-skylake-sp": 18,
    "intel-ice-lake-sp": 28,
    "intel-sapphire-rapids": 56,
    "intel-sapphire-rapids-guest": 56,
    "intel-granite-rapids": 40,
}


@pytest.mark.parametrize("name", names())
def test_only_levels_of_which_a_source_says_so_are_in_slices(name):
    slices = [slices_of(cache) for cache in load(name).cache]
    assert slices[-1:] == [SLICED.get(name, 1)][: len(slices)]
    assert set(slices[:-1]) <= {1}
