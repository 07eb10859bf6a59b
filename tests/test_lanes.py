"""The vector steps behind many second levels: each lane is an LRU list of its own, compiled or not."""

import numba
import numpy as np
import pytest

from pagewalk.kernels.sizes import planes
from pagewalk.kernels.sizes.depths import (
    LARGEST,
    OWN,
    WAYS,
    aligned,
    depths,
    make_table,
    number_in_sets,
)

EDGES = [0, 1, 2, 3, 255, 256, 65_535, 65_536, LARGEST - 1, LARGEST]


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, 67, 1000, 1024, 2047, 65_535, OWN])
def test_division_is_exact(divisor):
    rng = np.random.default_rng(divisor)
    near = [k * divisor + d for k in rng.integers(0, LARGEST // divisor, 200).tolist() for d in (-1, 0, 1)]
    numbers = [n for n in EDGES + near if 0 <= n <= LARGEST]
    if divisor == OWN:
        numbers += [LARGEST * OWN + 5]
    table = make_table(1, divisor, LARGEST)
    for number in numbers:
        product = number * int(table.times)
        assert product < 1 << 64
        assert product >> int(table.shift) == number // divisor


@pytest.mark.parametrize("step", [depths, depths.py_func], ids=["compiled", "plain"])
@pytest.mark.parametrize(("sets", "units", "dtype"), [(1, 40, "u1"), (5, 1270, "u1"), (5, 1280, "u2")])
@pytest.mark.parametrize("own", [False, True])
def test_depths_are_those_of_lists(step, sets, units, dtype, own):
    """Keys of up to 254 fit 8 bits, for 255 is none."""
    rng = np.random.default_rng(units)
    number = np.arange(units)
    if own:
        number = number_in_sets(rng.integers(0, sets, units), sets)
        assert len(np.unique(number)) == units
    table = make_table(sets, OWN if own else sets, int(number.max()))
    assert own or table.rows.dtype == dtype
    depth, lists = np.zeros(700, np.uint8), [[] for _ in range(sets)]
    for _ in range(2):
        unit = np.concatenate([rng.integers(0, units, 350), (units * rng.random(350) ** 9).astype(np.int64)])
        step(table, np.append(number[unit], -1), depth)
        for one, found in zip(unit.tolist(), depth.tolist(), strict=True):
            kept = lists[number[one] % (OWN if own else sets)]
            assert found == (kept.index(one) if one in kept[:WAYS] else WAYS)
            if one in kept:
                kept.remove(one)
            kept.insert(0, one)


def test_keys_of_more_than_16_bits():
    table = make_table(1, 1, 1 << 17)
    depth = np.zeros(3, np.uint8)
    depths(table, np.array([1 << 16, 0, 1 << 16, -1]), depth)
    assert table.rows.dtype == np.uint32
    assert depth.tolist() == [WAYS, WAYS, 1]


def plain_look_up(held, row, ways, key, path, looking, at, bits):
    planes.look_up(held, row, ways, key, path, looking, at, bits)


def plain_spread(depth, table, first, looking, at):
    planes.spread(depth, table, first, looking, at)


def plain_add_up(looking, chosen, count, counter):
    planes.add_up(looking, chosen, count, counter)


BOTH = pytest.mark.parametrize("of", [numba.njit, lambda plain: plain], ids=["compiled", "plain"])


def lanes_of(plane):
    """Whether each of the lanes is set: of the first table those of 1, 2, ... 32 ways, of the second ..."""
    return (plane[:, None] >> np.arange(WAYS, dtype=np.uint32) & 1).astype(bool).ravel()


def plane_of(lanes):
    return (lanes.reshape(-1, WAYS) << np.arange(WAYS)).sum(axis=1).astype(np.uint32)


@BOTH
@pytest.mark.parametrize(("ways", "bits"), [(1, 4), (4, 4), (3, 8), (9, 4), (2, 16)])
def test_look_up_is_that_of_lists(of, ways, bits):
    """Those that do not look keep what they have. At the start all ways hold the first entry."""
    rng, step = np.random.default_rng(ways), of(plain_look_up)
    names = rng.choice(1 << bits, min(2 * ways + 1, 1 << bits), replace=False)
    key = aligned((len(names), bits), np.uint32, 0)
    key[:] = -(names[:, None] >> np.arange(bits) & 1)
    held, looking = (aligned((rows, planes.TABLES), np.uint32, 0) for rows in (3 + ways * bits, 2))
    for way in range(ways):
        held[2 + way * bits : 2 + (way + 1) * bits] = key[0, :, None]
    lists = [[0] for _ in range(planes.TABLES * WAYS)]
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
def test_planes_of_depths(of):
    depth = np.random.default_rng(1).integers(0, WAYS + 1, (planes.TABLES + 3, 40)).astype(np.uint8)
    looking = aligned((20, planes.TABLES), np.uint32, 7)
    of(plain_spread)(depth, 3, 24, looking, 2)
    for miss in range(planes.STEP):
        assert (lanes_of(looking[2 + miss]) == (np.arange(WAYS) < depth[3:, None, 24 + miss]).ravel()).all()
    assert (looking[[0, 1, 18, 19]] == 7).all()


@BOTH
def test_counters_add_up(of):
    rng, step = np.random.default_rng(2), of(plain_add_up)
    looking = aligned((50, planes.TABLES), np.uint32, 0)
    looking[:] = rng.integers(0, 1 << 32, looking.shape)
    counter = aligned((planes.COUNTER, planes.TABLES), np.uint32, 0)
    counter[10] = 5
    expected = 1024 * lanes_of(counter[10]).astype(int)
    for count in (0, 16, 48, 320):
        chosen = rng.integers(0, 50, count + 3).astype(np.int32)
        step(looking, chosen, count, counter)
        for plane in chosen[:count]:
            expected += lanes_of(looking[plane])
    found = sum(lanes_of(plane).astype(int) << bit for bit, plane in enumerate(counter))
    assert (found == expected).all()
