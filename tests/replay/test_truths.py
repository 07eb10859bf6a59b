"""What arithmetic says must come out: the analytic truths of the hardware reference's section 6.

Each is asked of the oracle at a small scale and of the engine at a larger one. Where the truth is a
probability, the tolerance is five standard deviations of the mean of independent draws, or what the source
states.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from pagewalk.hardware.machine import Cache, Guest, Machine, Psc, Walker
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.mapping import Mapping
from pagewalk.replay.engine import replay
from pagewalk.trace.trace import from_pages
from reference import LOAD, simulate
from strategies import VMALLOC, X86, machine, mapping, tlb

Misses = tuple[Any, Any, dict[str, int]]
"""Whether each access missed L1, and STLB; and the counts."""


def missed(at: Sequence[int], accesses: int) -> Any:
    found = np.zeros(accesses, bool)
    found[list(at)] = True
    return found


def oracle(hardware: Machine, mapped: Mapping, order: Any) -> Misses:
    found = simulate(hardware, mapped.page.tolist(), mapped, order.tolist(), [LOAD] * len(order))
    l1, stlb = (missed(found[f"{level}_miss_positions"], len(order)) for level in ("l1", "stlb"))
    return l1, stlb, found["counts"]


def engine(hardware: Machine, mapped: Mapping, order: Any) -> Misses:
    at: list[Any] = []
    trace = from_pages("truth", mapped.page.astype(np.uint64), order.astype(np.uint32))
    found = replay(trace, mapped, hardware, on_misses=lambda *positions: at.append(positions))
    l1, stlb = (missed(np.concatenate(level), len(order)) for level in zip(*at, strict=True))
    return l1, stlb, found.counts


Simulator = Callable[[Machine, Mapping, Any], Misses]
BOTH = pytest.mark.parametrize(
    ("simulator", "accesses"), [(oracle, 8_000), (engine, 400_000)], ids=["oracle", "engine"]
)


def pages(number: int, stride: int = 1) -> list[int]:
    return [VMALLOC + stride * n for n in range(number)]


def close(hits: Any, probability: float, skip: int = 0) -> None:
    """The share of hits is that probability, as independent draws would have it."""
    hits = hits[skip:]
    deviation = math.sqrt(max(probability * (1 - probability), 1e-4) / len(hits))
    assert hits.mean() == pytest.approx(probability, abs=5 * deviation)


def solve(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return low


# ---------------------------------------------------------------- 6.1 one structure


@BOTH
@pytest.mark.parametrize("policy", ["lru", "fifo", "random", "tree-plru", "nru", "srrip"])
def test_uniform_hits_are_entries_over_pages(simulator: Simulator, accesses: int, policy: str) -> None:
    """6.1.1: whatever the policy, what is resident is independent of what comes next."""
    order = np.random.default_rng(1).integers(0, 100, accesses)
    l1, _, _ = simulator(machine(tlb(1, 32, policy=policy)), mapping(pages(100)), order)
    close(~l1, 32 / 100, skip=1000)


@BOTH
@pytest.mark.parametrize(
    ("index", "share"), [("modulo", 2 * 2 / 64), ("VPN[3:0] ^ VPN[7:4]", 16 * 2 / 64)], ids=["modulo", "xor"]
)
def test_uniform_at_a_stride(simulator: Simulator, accesses: int, index: str, share: float) -> None:
    """6.1.2: 64 pages, 8 apart, 16 sets of 2: low bits use 2 sets, for 32 pages each; folding uses all 16."""
    order = np.random.default_rng(2).integers(0, 64, accesses)
    l1, _, _ = simulator(machine(tlb(1, 32, 2, index=index)), mapping(pages(64, 8)), order)
    close(~l1, share, skip=1000)


@BOTH
def test_uniform_over_unequal_sets(simulator: Simulator, accesses: int) -> None:
    """6.1.2: the sum over sets of min(pages of the set, ways), over the pages."""
    where = [0, 4, 8, 12, 16, 20, 1, 5, 9, 2]  # set 0: 6 pages, set 1: 3, set 2: 1, set 3: none
    order = np.random.default_rng(3).integers(0, 10, accesses)
    l1, _, _ = simulator(machine(tlb(1, 16, 4)), mapping([VMALLOC + n for n in where]), order)
    close(~l1, (4 + 3 + 1) / 10, skip=500)


@BOTH
@pytest.mark.parametrize("policy", ["lru", "fifo", "tree-plru"])
@pytest.mark.parametrize("ways", [8, 16])
def test_cyclic_order_hits_always_or_never(
    simulator: Simulator, accesses: int, policy: str, ways: int
) -> None:
    """6.1.3: all hits up to the ways, none beyond them."""
    hardware = machine(tlb(1, ways, policy=policy))
    for around in (ways - 1, ways, ways + 1, ways + 3, 2 * ways):
        order = np.arange(accesses // 4) % around
        l1, _, _ = simulator(hardware, mapping(pages(around)), order)
        assert l1[:around].all()
        assert l1[10 * around :].all() if around > ways else not l1[around:].any()


@BOTH
@pytest.mark.parametrize(
    ("ways", "around", "ratio"),
    [(16, 17, 0.12), (16, 20, 0.38), (16, 32, 0.80), (8, 9, 0.23), (8, 12, 0.60), (8, 16, 0.81)],
)
def test_cyclic_order_under_random_replacement(
    simulator: Simulator, accesses: int, ways: int, around: int, ratio: float
) -> None:
    """6.1.3: the figures that the reference gives, to the two digits that it gives."""
    order = np.arange(accesses) % around
    l1, _, _ = simulator(machine(tlb(1, ways, policy="random")), mapping(pages(around)), order)
    assert l1[accesses // 8 :].mean() == pytest.approx(ratio, abs=0.015 if simulator is engine else 0.03)


@BOTH
@pytest.mark.parametrize(("mib", "ratio"), [(8, 0.0), (9, 5 / 9), (10, 6 / 10), (12, 1.0)])
def test_mixed_sets_of_zen3(simulator: Simulator, accesses: int, mib: int, ratio: float) -> None:
    """6.1.4: index {VA[21], VA[18:12]}, 256 sets of 8: the share of pages in sets with more than 8."""
    hardware = machine(tlb(1, 1), tlb(2, 2048, 8, index="{VPN[9], VPN[6:0]}"))
    around = mib * 256
    order = np.arange(max(accesses, 3 * around)) % around
    _, stlb, _ = simulator(hardware, mapping(pages(around)), order)
    assert stlb[:around].all()
    assert stlb[around : 3 * around].mean() == ratio


@BOTH
@pytest.mark.parametrize("per_page", [64, 3, 1])
def test_sequential_stream_misses_once_a_page(simulator: Simulator, accesses: int, per_page: int) -> None:
    """6.1.5."""
    order = np.arange(accesses // 2) // per_page
    l1, stlb, _ = simulator(machine(tlb(1, 64, 4), tlb(2, 1536, 12)), mapping(pages(order[-1] + 1)), order)
    assert l1.sum() == stlb.sum() == order[-1] + 1


@BOTH
@pytest.mark.parametrize(("entries", "around"), [(1, 10), (4, 10), (9, 10), (32, 50)])
def test_sawtooth(simulator: Simulator, accesses: int, entries: int, around: int) -> None:
    """6.1.6: h = (E - 1) / (N - 1) exactly, from the second period on."""
    period = np.concatenate([np.arange(around), np.arange(around - 2, 0, -1)])
    times = accesses // len(period) // 4
    l1, _, _ = simulator(machine(tlb(1, entries)), mapping(pages(around)), np.tile(period, times))
    hits = len(period) * (times - 1) - l1[len(period) :].sum()
    assert hits * (around - 1) == (entries - 1) * len(period) * (times - 1)


# ---------------------------------------------------------------- 6.2 popularity


def popular(weights: Any, accesses: int) -> tuple[Any, Any]:
    """Probabilities, and accesses drawn by them."""
    q = weights / weights.sum()
    return q, np.random.default_rng(5).choice(len(q), accesses, p=q)


ZIPF = 1 / np.arange(1, 401) ** 0.9


@BOTH
@pytest.mark.parametrize("entries", [64, 128])
def test_lru_under_zipf_is_che(simulator: Simulator, accesses: int, entries: int) -> None:
    """6.2.1: error below 1 % from 50 entries on; and 6.2.3, its bound."""
    q, order = popular(ZIPF, accesses)
    time = solve(lambda t: float((1 - np.exp(-q * t)).sum() - entries), 0, 1e7)
    expected = float((q * (1 - np.exp(-q * time))).sum())
    l1, _, _ = simulator(machine(tlb(1, entries)), mapping(pages(len(q))), order)
    assert (~l1[2000:]).mean() == pytest.approx(expected, abs=0.01 if simulator is engine else 0.03)
    assert expected < np.sort(q)[-entries:].sum()


@BOTH
@pytest.mark.parametrize("policy", ["fifo", "random"])
def test_fifo_and_random_under_zipf(simulator: Simulator, accesses: int, policy: str) -> None:
    """6.2.2: the same hit ratio for both."""
    q, order = popular(ZIPF, accesses)
    time = solve(lambda t: float((q * t / (1 + q * t)).sum() - 64), 0, 1e7)
    expected = float((q * q * time / (1 + q * time)).sum())
    l1, _, _ = simulator(machine(tlb(1, 64, policy=policy)), mapping(pages(len(q))), order)
    assert (~l1[2000:]).mean() == pytest.approx(expected, abs=0.01 if simulator is engine else 0.03)


@BOTH
def test_small_and_large_leaves_share_an_array(simulator: Simulator, accesses: int) -> None:
    """6.2.4 and 6.4.5: half of the accesses to 256 large leaves, half to 1024 small ones."""
    hot, cold, entries = 256, 1024, 400
    where = [VMALLOC + 512 * n for n in range(hot)] + [VMALLOC + (1 << 20) + n for n in range(cold)]
    rng = np.random.default_rng(6)
    order = np.where(
        rng.random(accesses) < 0.5, rng.integers(0, hot, accesses), rng.integers(hot, hot + cold, accesses)
    )
    time = solve(
        lambda t: hot * (1 - math.exp(-t / 2 / hot)) + cold * (1 - math.exp(-t / 2 / cold)) - entries, 0, 1e6
    )
    l1, _, _ = simulator(machine(tlb(1, entries)), mapping(where, [21] * hot + [12] * cold), order)
    for leaf, number in ((order < hot, hot), (order >= hot, cold)):
        expected = 1 - math.exp(-time / 2 / number)
        assert (~l1)[3000:][leaf[3000:]].mean() == pytest.approx(
            expected, abs=0.01 if simulator is engine else 0.03
        )


# ---------------------------------------------------------------- 6.3 references of a walk


@BOTH
@pytest.mark.parametrize(
    ("geometry", "leaf", "references"),
    [
        ("x86-64", "base", 4), ("x86-64", "PMD", 3), ("x86-64", "PUD", 2),
        ("x86-64-5level", "base", 5), ("x86-64-5level", "PMD", 4), ("x86-64-5level", "PUD", 3),
        ("riscv-sv39", "base", 3), ("riscv-sv39", "PMD", 2), ("riscv-sv39", "PUD", 1),
        ("arm64-4k", "base", 4), ("arm64-4k", "PMD", 3), ("arm64-64k", "base", 3), ("arm64-64k", "PMD", 2),
        ("powerpc64-radix-64k", "base", 4), ("powerpc64-radix-64k", "PMD", 3),
    ],
)  # fmt: skip
def test_cold_walk(simulator: Simulator, accesses: int, geometry: str, leaf: str, references: int) -> None:
    shape = GEOMETRIES[geometry]
    mapped = mapping([shape.vmalloc_start >> 12], shape.leaf(leaf).shift, geometry=shape)
    _, _, counts = simulator(machine(tlb(1, 4), geometry=geometry), mapped, np.zeros(accesses, int))
    assert (counts["walks"], counts["walk_refs"]) == (1, references)


@BOTH
@pytest.mark.parametrize(
    ("guest", "host", "levels", "references"),
    [
        (12, "4K", 4, 24),
        (12, "2M", 4, 19),
        (21, "4K", 4, 19),
        (21, "2M", 4, 15),
        (30, "1G", 4, 8),
        (12, "4K", 5, 35),
    ],
)
def test_cold_nested_walk(
    simulator: Simulator, accesses: int, guest: int, host: Any, levels: int, references: int
) -> None:
    """(g + 1)(h + 1) - 1."""
    shape = GEOMETRIES["x86-64" if levels == 4 else "x86-64-5level"]
    hardware = machine(tlb(1, 4), guest=Guest(host_leaf=host, host_levels=levels))
    _, _, counts = simulator(hardware, mapping([VMALLOC], guest, geometry=shape), np.zeros(accesses, int))
    assert (counts["walks"], counts["walk_refs"]) == (1, references)


@BOTH
@pytest.mark.parametrize(("nested", "combined", "references"), [(0, False, 3), (64, False, 2), (0, True, 2)])
def test_warm_nested_walk(
    simulator: Simulator, accesses: int, nested: int, combined: bool, references: int
) -> None:
    """Upper levels of both dimensions cached: 3; the host's translation of the guest's table page too: 2.

    The nested TLB holds the few table pages, which every walk reads, but not the 1024 frames of data. A
    combined PDE-cache entry knows where the host has the table page.
    """
    host = [Psc(name=f"host {level}", level=level, entries=64) for level in (2, 3, 4)]
    own = [Psc(name=f"guest {level}", level=level, entries=64) for level in (2, 3, 4)]
    hardware = machine(
        tlb(1, 1), *own, guest=Guest(host_psc=host, nested_entries=nested, combined_psc=combined)
    )
    order = np.arange(max(4096, accesses // 8)) * 7 % 1024
    _, _, counts = simulator(hardware, mapping(pages(1024), frame=range(1 << 20, (1 << 20) + 1024)), order)
    assert counts[f"walks_by_refs_{references}"] / counts["walks"] > 0.97


@BOTH
@pytest.mark.parametrize(("apart", "walks"), [(1, 3), (512, 0)])
def test_what_walks_remember_lies_among_translations(
    simulator: Simulator, accesses: int, apart: int, walks: int
) -> None:
    """Three pages in turn through seven entries: four more in all fit; two more for the host's PDEs of
    frames that lie apart, nine, and nothing ever hits."""
    hardware = machine(tlb(1, 1), tlb(2, 7), guest=Guest(walks_in_stlb=True))
    frames = mapping(pages(3), frame=range(1 << 20, (1 << 20) + 3 * apart, apart))
    order = np.arange(accesses) % 3
    _, _, counts = simulator(hardware, frames, order)
    assert counts["walks"] == (walks or accesses)


@BOTH
def test_references_of_uniform_walks(simulator: Simulator, accesses: int) -> None:
    """1 + (1 - hP)(1 + (1 - hQ)): 32 PDEs in 4 GiB, 8 of them and 1 PDPTE cached.

    hP = 8/32. The cached PDPTE is that of the last walk X that missed the PDE cache, X's PDE is cached
    still, and the other 7 are spread evenly over the other 31. So 8 - (1 + 7 * 7/31) of the 24 PDEs that
    are not cached lie in X's GiB, and hQ is their share.
    """
    psc = [
        Psc(name="PDE", level=2, entries=8),
        Psc(name="PDPTE", level=3, entries=1),
        Psc(name="top", level=4, entries=1),
    ]
    where = [
        VMALLOC + (1 << 18) * gib + 512 * mib2 + n for gib in range(4) for mib2 in range(8) for n in range(64)
    ]
    order = np.random.default_rng(8).integers(0, len(where), accesses)
    _, _, counts = simulator(machine(tlb(1, 1), *psc), mapping(where), order)
    found_pdpte = (8 - (1 + 7 * 7 / 31)) / 24
    expected = 1 + (1 - 8 / 32) * (1 + (1 - found_pdpte))
    assert counts["walk_refs"] / counts["walks"] == pytest.approx(expected, abs=5 / math.sqrt(accesses))


@BOTH
@pytest.mark.parametrize(("leaf", "stride"), [(12, 1), (21, 512)])
def test_sequential_pages_share_leaf_lines(
    simulator: Simulator, accesses: int, leaf: int, stride: int
) -> None:
    """One new leaf line for each 8 pages of 8-byte entries, one line for each 8 entries above."""
    number = 4096
    parts = [tlb(1, 1), Cache(name="L1D", size_bytes=1 << 20, ways=16, latency_cycles=4)]
    mapped, order = mapping(pages(number, stride), leaf), np.arange(number)
    if simulator is oracle:
        found = simulate(machine(*parts), pages(number, stride), mapped, order.tolist(), [LOAD] * number)
        from_memory = found["walk_refs_in"]["memory"]
    else:
        trace = from_pages("pages", mapped.page.astype(np.uint64), order.astype(np.uint32))
        from_memory = replay(trace, mapped, machine(*parts)).walk_refs_in["memory"]
    above = [number >> 9, number >> 18, number >> 27]  # entries of each level above the leaf's
    tops = above if leaf == 12 else above[:2]
    assert from_memory == number // 8 + sum(max(1, entries // 8) for entries in tops)


# ---------------------------------------------------------------- 6.4 two levels, and time


@BOTH
@pytest.mark.parametrize(
    ("inclusion", "least", "most"), [("none", 64, 80), ("inclusive", 64, 64), ("exclusive", 80, 80)]
)
def test_uniform_over_two_levels(
    simulator: Simulator, accesses: int, inclusion: Any, least: int, most: int
) -> None:
    """6.4.1: 16 and 64 entries over 100 pages."""
    order = np.random.default_rng(9).integers(0, 100, accesses)
    l1, stlb, _ = simulator(machine(tlb(1, 16), tlb(2, 64), inclusion=inclusion), mapping(pages(100)), order)
    close(~l1, 16 / 100, skip=1000)
    slack = 5 * math.sqrt(0.25 / accesses)
    assert least / 100 - slack <= (~stlb[1000:]).mean() <= most / 100 + slack
    if least == most:
        close(~stlb, least / 100, skip=1000)


def timed(walkers: int, window: int) -> tuple[int, Any]:
    """A random chase on such walkers; returns its accesses and what the engine said."""
    hardware = machine(
        tlb(1, 16), tlb(2, 64, hit_cycles=7), walker=Walker(count=walkers, window_accesses=window), memory=50
    )
    order = np.random.default_rng(10).integers(0, 1000, 20_000)
    trace = from_pages("chase", np.array(pages(1000), np.uint64), order.astype(np.uint32))
    return len(order), replay(trace, mapping(pages(1000)), hardware)


def test_dependent_chase_waits_for_everything() -> None:
    """6.4.2: hits of the second level at t2, walks at tw = 4 reads of 50 cycles."""
    _, found = timed(1, 0)
    assert found.counts["walks"] > 15_000
    assert found.cycles["walk"] == 200 * found.counts["walks"]
    assert found.cycles["exposed"] == 200 * found.counts["walks"] + 7 * found.counts["stlb_hits"]


@pytest.mark.parametrize("walkers", [1, 2, 4])
def test_walkers_bound_the_throughput(walkers: int) -> None:
    """6.4.3, Little: at most K / tw walks a cycle, and with enough accesses in flight close to it."""
    accesses, found = timed(walkers, 500)
    cycles = accesses + found.cycles["exposed"] - found.cycles["stlb_hit"]
    least = found.counts["walks"] * 200 / walkers
    assert least <= cycles <= 1.02 * least + 200


@pytest.mark.parametrize(
    ("name", "leaf", "mib"),
    [
        ("intel-skylake-sp", 12, 6),
        ("amd-zen3-milan", 12, 8),
        ("intel-skylake-sp", 21, 3072),
        ("amd-zen3-milan", 21, 4096),
    ],
)
def test_reach_of_presets(name: str, leaf: int, mib: int) -> None:
    """6.4.4: all of it fits the STLB, twice of it misses for the most part."""
    from pagewalk.hardware.load import load

    hardware = load(name)
    number = (mib << 20) >> leaf
    for spread, ratio in ((1, 0.0), (2, 1.0)):
        around = number * spread
        where = [VMALLOC + (n << leaf - 12) for n in range(around)]
        _, stlb, _ = engine(hardware, mapping(where, leaf, geometry=X86), np.arange(6 * around) % around)
        assert stlb[4 * around :].mean() == pytest.approx(ratio, abs=0.3 if ratio else 0.05)
