"""Index expressions against a plain reading of them, and what they predict against what was measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.hardware.index import evaluate, parse, set_index, width
from pagewalk.hardware.load import load


def named(machine, name):
    return next(table for table in (*machine.tlb, *machine.psc) if table.name == name)


def plain(tree, page):
    """Read an expression tree bit by bit, as text: (kind, parts) or ("bits", high, low)."""
    if tree[0] == "bits":
        text = format(page, "052b")
        return text[51 - tree[1] : 52 - tree[2]]
    parts = [plain(part, page) for part in tree[1]]
    if tree[0] == "{":
        return "".join(parts)
    return "".join(str(sum(map(int, column)) % 2) for column in zip(*parts, strict=True))


def spelled(tree):
    if tree[0] == "bits":
        return f"VPN[{tree[1]}]" if tree[1] == tree[2] else f"VPN[{tree[1]}:{tree[2]}]"
    if tree[0] == "{":
        return "{" + ", ".join(map(spelled, tree[1])) + "}"
    return " ^ ".join(spelled(part) if part[0] != "^" else "{" + spelled(part) + "}" for part in tree[1])


def of_width(bits, depth):
    low = st.integers(0, 52 - bits)
    leaf = low.map(lambda start: ("bits", start + bits - 1, start))
    if depth == 0:
        return leaf
    xor = st.lists(of_width(bits, depth - 1), min_size=2, max_size=3).map(lambda parts: ("^", parts))
    if bits == 1:
        return leaf | xor
    split = st.integers(1, bits - 1).flatmap(
        lambda left: st.tuples(of_width(left, depth - 1), of_width(bits - left, depth - 1))
    )
    return leaf | xor | split.map(lambda parts: ("{", list(parts)))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 6).flatmap(lambda bits: of_width(bits, 2)).filter(lambda tree: len(spelled(tree)) <= 200),
    st.lists(st.integers(0, 2**52 - 1), min_size=1, max_size=5),
)
def test_expressions_mean_what_they_say(tree, pages):
    expected = [int(plain(tree, page), 2) for page in pages]
    assert evaluate(spelled(tree), np.array(pages, np.int64)).tolist() == expected
    assert width(parse(spelled(tree))) == len(plain(tree, 0))


def test_modulo_is_for_any_number_of_sets():
    pages = np.array([0, 1, 383, 384, 2**52 - 1], np.int64)
    assert set_index("modulo", pages, 384).tolist() == [page % 384 for page in pages.tolist()]


REFUSED = [
    *("", "VPN", "VPN[]", "VPN[6:7]", "VPN[52]", "VPN[-1]", "VPN[9999]", "PPN[3:0]", "VPN[3:0]]"),
    *("VPN[1:0] ^ VPN[2]", "VPN[1] VPN[2]", "VPN[1] ^", "{VPN[1]", "{}", "{VPN[1],}"),
    *("{" * 150, "VPN[1] ^ " * 40),
]


@pytest.mark.parametrize("expression", REFUSED)
def test_other_expressions_are_refused(expression):
    with pytest.raises(ValueError, match="index expression"):
        parse(expression)


def fitting(array, stride):
    """Most pages at a stride that an array keeps under LRU in a cyclic order: no set over its ways."""
    pages = np.arange(1 << 14, dtype=np.int64) * stride
    ways = array.ways or array.entries
    index = set_index(array.index, pages, array.entries // ways)
    seen = np.zeros(array.entries // ways, np.int64)
    for count, place in enumerate(index.tolist()):
        seen[place] += 1
        if seen[place] > ways:
            return count
    raise AssertionError("never full")


KNEES = [
    # reference, 5.3: "Knees to reproduce", strides of 1, 2 and 4 pages
    ("amd-zen2-rome", "L1 DTLB", {1: 64, 2: 64, 4: 64}),
    ("amd-zen3-milan", "L1 DTLB", {1: 64, 2: 64, 4: 64}),
    ("intel-skylake-sp", "L1 DTLB 4K", {1: 64, 2: 32, 4: 16}),
    ("intel-ice-lake-sp", "L1 load DTLB 4K", {1: 64, 2: 32, 4: 16}),
    ("intel-sapphire-rapids", "L1 load DTLB 4K", {1: 96, 2: 48, 4: 24}),
    ("intel-granite-rapids", "L1 load DTLB 4K", {1: 96, 2: 48, 4: 24}),
    ("amd-zen2-rome", "L2 DTLB", {1: 2048, 2: 1024, 4: 512}),
    ("amd-zen3-milan", "L2 DTLB", {1: 2048, 2: 1024, 4: 512}),
    ("intel-skylake-sp", "STLB", {1: 1536, 2: 1536, 4: 1536}),
    # 2: reach stays 12 MiB
    ("amd-zen4-genoa", "L2 DTLB", {1: 3072, 2: 1536, 4: 768}),
    # 5.5
    ("apple-m1-firestorm", "L1 DTLB", {1: 160, 2: 80, 4: 40, 8: 20, 16: 10, 32: 5, 64: 5}),
    ("apple-m1-firestorm", "L2 TLB", {1: 3072, 32: 96, 64: 48, 128: 24, 256: 12, 512: 12}),
]


@pytest.mark.parametrize(("preset", "array", "knees"), KNEES, ids=lambda value: str(value)[:24])
def test_measured_knees_follow_from_geometry_and_index(preset, array, knees):
    tlb = named(load(preset), array)
    assert {stride: fitting(tlb, stride) for stride in knees} == knees


@pytest.mark.parametrize(
    ("stride_kib", "filler", "first", "second"), [(512, 0, 17, 21), (1024, 1, 14, 19), (2048, 1, 15, 18)]
)
def test_zen3_index_overflows_where_it_was_measured(stride_kib, filler, first, second):
    """Reference 4.2: m pages that share VA[18:12]; one filler page lies in the set of page 0."""
    array = named(load("amd-zen3-milan"), "L2 DTLB")
    pages = np.arange(30, dtype=np.int64) * (stride_kib // 4)
    index = set_index(array.index, pages, 256)
    seen, full = {int(index[0]): filler}, []
    for count, place in enumerate(index.tolist(), 1):
        seen[place] = seen.get(place, 0) + 1
        if seen[place] == array.ways + 1:
            full.append(count)
    assert full == [first, second]


def test_zen3_pde_reach_is_4_gib_at_every_spacing():
    """Reference 4.7: 256 pages fit at 16M spacing, 64 at 64M, 16 at 256M."""
    pde = named(load("amd-zen3-milan"), "PDE cache")
    sets = pde.entries // pde.ways
    for spacing_mib, fit in ((16, 256), (64, 64), (256, 16)):
        keys = np.arange(fit + 1, dtype=np.int64) * (spacing_mib // 2)
        assert np.bincount(keys[:fit] % sets).max() == pde.ways
        assert np.bincount(keys % sets).max() == pde.ways + 1


@pytest.mark.parametrize("preset", ["intel-ice-lake-sp", "intel-sapphire-rapids", "intel-granite-rapids"])
def test_two_arrays_hold_2048_small_pages_and_1024_of_each_large_size(preset):
    """Reference 0.1; and at 16K stride no step at 512 pages, one between 1024 and 1536 (assumed index)."""
    machine = load(preset)
    small, huge = (tlb for tlb in machine.tlb if tlb.level == 2)
    assert (small.holds, huge.holds) == (["4K", "2M"], ["4K", "1G"])

    def fits(pages):
        array = evaluate(machine.choose, pages)
        index = array * 128 + set_index(small.index, pages, 128)
        return np.bincount(index).max() <= 8

    row = np.arange(4096, dtype=np.int64)
    assert fits(row[:2048])
    assert not fits(row[:2049])
    assert fits(row[:1024] * 4)
    assert not fits(row[:1536] * 4)
    assert fitting(small, 1) == fitting(huge, 1) == 1024
