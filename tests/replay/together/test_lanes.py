"""The vector steps behind many second levels: each lane is an LRU list of its own, compiled or not."""

import numba
import numpy as np
import pytest

from pagewalk.kernels.sizes import planes
from pagewalk.kernels.sizes.depths import (
    LARGEST,
    OWN,
    aligned,
    make_table,
    misses,
    number_in_sets,
)
from pagewalk.replay.together.lanes import most_tables

EDGES = [0, 1, 2, 3, 255, 256, 65_535, 65_536, LARGEST - 1, LARGEST]


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 67, 1000, 1024, 2047, 65_535, OWN])
def test_division_is_exact(divisor):
    rng = np.random.default_rng(divisor)
    near = [k * divisor + d for k in rng.integers(0, LARGEST // divisor, 200).tolist() for d in (-1, 0, 1)]
    numbers = [n for n in EDGES + near if 0 <= n <= LARGEST]
    if divisor == OWN:
        numbers += [LARGEST * OWN + 5]
    table = make_table(1, divisor, LARGEST, [1])
    for number in numbers:
        product = number * int(table.times)
        assert product < 1 << 64
        assert product >> int(table.shift) == number // divisor


@pytest.mark.parametrize("step", [misses, misses.py_func], ids=["compiled", "plain"])
@pytest.mark.parametrize(("sets", "units", "dtype"), [(1, 40, "u1"), (5, 1270, "u1"), (5, 1280, "u2")])
@pytest.mark.parametrize(("own", "ways"), [(False, list(range(1, 33))), (True, [1, 4, 32]), (False, [3])])
def test_misses_are_those_of_lists(step, sets, units, dtype, own, ways):
    """Keys of up to 254 fit 8 bits, for 255 is none."""
    rng = np.random.default_rng(units)
    number = np.arange(units)
    if own:
        number = number_in_sets(rng.integers(0, sets, units), sets)
        assert len(np.unique(number)) == units
    table = make_table(sets, OWN if own else sets, int(number.max()), ways)
    assert own or table.rows.dtype == dtype
    missed, lists = np.zeros(700, np.uint8), [[] for _ in range(sets)]
    for _ in range(2):
        unit = np.concatenate([rng.integers(0, units, 350), (units * rng.random(350) ** 9).astype(np.int64)])
        step(table, np.append(number[unit], -1), missed)
        for one, found in zip(unit.tolist(), missed.tolist(), strict=True):
            kept = lists[number[one] % (OWN if own else sets)]
            assert found == sum(one not in kept[:most] for most in ways)
            if one in kept:
                kept.remove(one)
            kept.insert(0, one)


def test_keys_of_more_than_16_bits():
    table = make_table(1, 1, 1 << 17, [1, 2])
    missed = np.zeros(4, np.uint8)
    misses(table, np.array([1 << 16, 0, 1 << 16, 1 << 16, -1]), missed)
    assert table.rows.dtype == np.uint32
    assert missed.tolist() == [2, 2, 1, 0]


def test_memory_of_numbers_bounds_a_pass():
    """8 bytes a unit and table of at most 256 MiB, unless one number of each unit serves all."""
    near, far = np.arange(1 << 20), np.arange(1 << 20) << 20
    assert most_tables(near, [("modulo", 64), ("modulo", 2047)]) == 256
    assert most_tables(near, [("modulo", 64), ("VPN[5:0]", 64)]) == 32
    assert most_tables(near, [("modulo", 64), ("modulo", 1)]) == 32
    assert most_tables(far, [("modulo", 64)]) == 32
    assert most_tables(near // 2, [("modulo", 64)]) == 32


def plain_look_up(held, row, ways, key, path, looking, at, bits):
    planes.look_up(held, row, ways, key, path, looking, at, bits)


def plain_spread(missed, table, first, shift, looking, at):
    planes.spread(missed, table, first, shift, looking, at)


def plain_add_up(looking, chosen, count, counter):
    planes.add_up(looking, chosen, count, counter)


BOTH = pytest.mark.parametrize("of", [numba.njit, lambda plain: plain], ids=["compiled", "plain"])


def lanes_of(plane):
    """Whether each of the lanes is set."""
    return (plane[:, None] >> np.arange(planes.WORD, dtype=np.uint32) & 1).astype(bool).ravel()


def plane_of(lanes):
    return (lanes.reshape(-1, planes.WORD) << np.arange(planes.WORD)).sum(axis=1).astype(np.uint32)


@BOTH
@pytest.mark.parametrize(("ways", "bits"), [(1, 4), (4, 4), (3, 8), (9, 4), (2, 16)])
def test_look_up_is_that_of_lists(of, ways, bits):
    """Those that do not look keep what they have. At the start all ways hold the first entry."""
    rng, step = np.random.default_rng(ways), of(plain_look_up)
    names = rng.choice(1 << bits, min(2 * ways + 1, 1 << bits), replace=False)
    key = aligned((len(names), bits), np.uint32, 0)
    key[:] = -(names[:, None] >> np.arange(bits) & 1)
    held, looking = (aligned((rows, planes.WORDS), np.uint32, 0) for rows in (3 + ways * bits, 2))
    for way in range(ways):
        held[2 + way * bits : 2 + (way + 1) * bits] = key[0, :, None]
    lists = [[0] for _ in range(planes.WORDS * planes.WORD)]
    for _ in range(60):
        path = int(len(names) * rng.random() ** 2)
        looks = rng.random(len(lists)) < rng.choice([0.05, 0.5, 1])
        looking[1] = plane_of(looks)
        step(held, 2, ways, key, path, looking, 1, tuple(range(bits)))
        left = lanes_of(looking[1])
        for lane in np.flatnonzero(looks).tolist():
            kept = lists[lane]
            assert left[lane] == (path not in kept)
            if path in kept:
                kept.remove(path)
            kept.insert(0, path)
            del kept[ways:]
        assert not left[~looks].any()
    assert (held[[0, 1, -1]] == 0).all()


@BOTH
@pytest.mark.parametrize("width", [1, 8, 32])
def test_lanes_that_miss(of, width):
    """Tables that share the words of a plane have `width` lanes each."""
    rng, step = np.random.default_rng(width), of(plain_spread)
    blocks = planes.WORD // width
    missed = rng.integers(0, width + 1, (3 + blocks * planes.WORDS, 40)).astype(np.uint8)
    looking = aligned((20, planes.WORDS), np.uint32, 7)
    for block in range(blocks):
        step(missed, 3 + block * planes.WORDS, 24, block * width, looking, 2)
    for miss in range(planes.STEP):
        counts = missed[3:, 24 + miss].reshape(blocks, planes.WORDS).T
        assert (lanes_of(looking[2 + miss]) == (np.arange(width) < counts[:, :, None]).ravel()).all()
    assert (looking[[0, 1, 18, 19]] == 7).all()


@BOTH
def test_counters_add_up(of):
    rng, step = np.random.default_rng(2), of(plain_add_up)
    looking = aligned((50, planes.WORDS), np.uint32, 0)
    looking[:] = rng.integers(0, 1 << 32, looking.shape)
    counter = aligned((planes.COUNTER, planes.WORDS), np.uint32, 0)
    counter[10] = 5
    expected = 1024 * lanes_of(counter[10]).astype(int)
    for count in (0, 16, 48, 320):
        chosen = rng.integers(0, 50, count + 3).astype(np.int32)
        step(looking, chosen, count, counter)
        for plane in chosen[:count]:
            expected += lanes_of(looking[plane])
    found = sum(lanes_of(plane).astype(int) << bit for bit, plane in enumerate(counter))
    assert (found == expected).all()
