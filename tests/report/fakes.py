"""Results made up for layout: every figure is invented, none came out of the engine."""

import random

from pagewalk.replay.result import Provenance, RegionCost, Replay, Result, TraceFacts, Windows
from pagewalk.study.validation.validate import Outcome, Row

KIB, MIB = 1 << 10, 1 << 20


def replay(
    mapping="base",
    machine="textbook-setassoc",
    *,
    accesses=2_000_000,
    walks=40_000,
    cycles=None,
    levels=("L1D", "L2", "L3", "memory"),
    weights=(12, 68, 18, 2),
    regions=None,
    page_tables=428 * KIB,
    waste=0,
    windows=60,
    notes=(),
    seed=1,
):
    refs = int(walks * 1.2)
    parts = [refs * w // sum(weights) for w in weights]
    parts[0] += refs - sum(parts)
    cycles = walks * 36 if cycles is None else cycles
    draw = random.Random(seed)
    shape = [draw.uniform(0.6, 1.4) * (2.5 if i % 20 < 4 else 1) for i in range(windows)]
    scale = sum(shape) or 1
    if regions is None:
        regions = [
            RegionCost(
                name="vmalloc 0xffffc90000200000",
                caller="alloc_large_system_hash+0x197/0x27c",
                kind="vmalloc",
                leaf="base" if mapping == "base" else "PMD",
                size_bytes=64 * MIB,
                accesses=accesses // 10,
                stlb_misses=walks // 2,
                walk_cycles=cycles // 2,
            ),
            RegionCost(
                name="direct map",
                kind="direct map",
                leaf="mixed",
                accesses=accesses // 2,
                stlb_misses=walks // 3,
                walk_cycles=cycles // 3,
            ),
            RegionCost(
                name="vmalloc 0xffffc90007600000",
                caller="nf_ct_alloc_hashtable+0x41/0x80",
                kind="vmalloc",
                leaf="base" if mapping == "base" else "PMD",
                size_bytes=9 * MIB,
                waste_bytes=waste,
                accesses=accesses // 8,
                stlb_misses=walks // 6,
                walk_cycles=cycles // 6,
            ),
        ]
    return Replay(
        machine=machine,
        mapping=mapping,
        counts={
            "accesses": accesses,
            "l1_dtlb_misses": walks * 4,
            "stlb_misses": walks,
            "walks": walks,
            "walk_refs": refs,
        },
        cycles={"walk": cycles, "exposed": cycles, "stlb_hit": walks * 21},
        memory={"page_tables": page_tables, "rounding_waste": waste},
        walk_refs_in=dict(zip(levels, parts, strict=True)),
        walk_cycles_by_level={
            "PTE": cycles * 7 // 10,
            "PDE": cycles * 2 // 10,
            "PDPTE": cycles // 10,
            "PML4E": 0,
        },
        by_region=regions,
        windows=Windows(
            accesses_per_window=max(1, accesses // max(windows, 1)),
            l1_misses=[int(walks * 4 * s / scale) for s in shape],
            stlb_misses=[int(walks * s / scale) for s in shape],
            walk_cycles=[int(cycles * s / scale) for s in shape],
        ),
        notes=list(notes),
    )


def result(*replays, name="gitdiff-small", accesses=2_000_000, pages=1317):
    return Result(
        trace=TraceFacts(name=name, accesses=accesses, distinct_base_pages=pages, records=accesses),
        replays=list(replays),
        provenance=Provenance(pagewalk="0.1.0"),
    )


def saving():
    """The common case: most cycles saved for some memory."""
    return result(
        replay("base", notes=["PDE cache: 32 entries, 4-way (definition of the textbook machine)"]),
        replay(
            "pmd", walks=9000, weights=(40, 52, 7, 1), page_tables=12 * KIB, waste=int(1.75 * MIB), seed=2
        ),
    )


def worse():
    return result(replay("base", walks=9000), replay("pmd", walks=11000, waste=3 * MIB))


def same():
    return result(replay("base"), replay("pmd"))


def idle():
    """No walk at all."""
    return result(replay("base", walks=0), replay("pmd", walks=0))


def single():
    return result(replay("base"))


def many_regions(count=40):
    def regions(mapping):
        draw = random.Random(count)
        return [
            RegionCost(
                name=f"vmalloc {0xFFFFC90000000000 + i * 0x400000:#x}",
                caller=f"a_very_long_caller_name_of_an_allocating_function_number_{i}.constprop.0+0x1/0x2",
                kind="vmalloc",
                leaf="base" if mapping == "base" else "PMD",
                size_bytes=(i + 2) * MIB,
                waste_bytes=0 if mapping == "base" else (i % 2) * MIB,
                accesses=10_000 * (count - i),
                stlb_misses=1000 * (count - i),
                walk_cycles=int(
                    draw.uniform(0.5, 2) * 30_000 * (count - i) * (1 if mapping == "base" else 0.2)
                ),
            )
            for i in range(count)
        ]

    return result(
        replay("base", regions=regions("base")),
        replay("pmd", walks=9000, regions=regions("pmd"), waste=20 * MIB),
        name="/a/long/folder/with-a-trace-name-that-does-not-end-soon.trace",
    )


def huge():
    return result(
        replay("base", accesses=10**12, walks=9 * 10**11, page_tables=2**41),
        replay("pmd", accesses=10**12, walks=10**11, page_tables=2**32, waste=2**40),
        accesses=10**12,
        pages=2**33,
        name="huge",
    )


def several_machines(count=5):
    machines = ["textbook-setassoc", "intel_skylake_sp", "amd_zen3_milan", "ibm_power9", "arm_neoverse_v2"]
    machines += [f"machine-{i}" for i in range(count - len(machines))]
    replays = []
    for i, machine in enumerate(machines[:count]):
        replays.append(replay("base", machine, walks=40_000 - 5000 * (i % 8), seed=i))
        replays.append(replay("pmd", machine, walks=9000 + 2500 * i, waste=2 * MIB, seed=9 + i))
    return result(*replays)


def three_mappings():
    return result(replay("base"), replay("pmd", walks=9000, seed=2), replay("recorded", walks=12_000, seed=3))


def measured_row(measured, predicted, inside, quantity="walk_cycles"):
    return Row(
        quantity=quantity,
        per="access",
        at={},
        over={},
        measured=measured,
        predicted=predicted,
        sampling_error=0.0,
        error=predicted / measured - 1,
        low=0.9 * measured,
        high=1.1 * measured,
        inside=inside,
    )


def measured_case(name, rows, **more):
    more = {"machine": "textbook-setassoc", **more}
    return Outcome(name=name, title=name, source="made up", verdict="inside", rows=rows, **more)
