"""vmalloc addresses: rules of the kernel, facts of a live machine, and a recorded run of 221 events."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagewalk.linux.geometry import GEOMETRIES, MIB
from pagewalk.linux.memory.areas import AddressSpace, Purge, Span, module_space
from places import OUTSIDE

X86 = GEOMETRIES["x86-64"]
KIB = 1 << 10
BASE = 0xFFFF_C900_0000_0000
SAMPLE = OUTSIDE / "reference/samples/perf-script-vmalloc-events-6.18.txt"


def space(cpus=2, pools=False, purges=None, geometry=X86):
    return AddressSpace(geometry, cpus, pools, (purges if purges is not None else []).append)


def test_the_lowest_address_that_fits_with_its_guard():
    areas = space()
    assert [areas.allocate(20 * KIB, 1) - BASE for _ in range(3)] == [0, 20 * KIB, 40 * KIB]
    assert areas.allocate(20 * KIB, 16 * KIB) - BASE == 64 * KIB
    assert areas.allocate(4 * KIB, 1) - BASE == 60 * KIB


@pytest.mark.parametrize("size", [2, 10, 64])
def test_pitch_of_equal_huge_areas(size):
    """n MiB plus 2 MiB: the guard page pushes the next one past the boundary (reference, fact 6)."""
    areas = space()
    areas.allocate(20 * KIB, 16 * KIB)
    starts = [areas.allocate(size * MIB + 4 * KIB, 2 * MIB) for _ in range(5)]
    assert {b - a for a, b in pairwise(starts)} == {(size + 2) * MIB}
    assert starts[0] == BASE + 2 * MIB
    gap = areas.allocate(2 * MIB - 4 * KIB, 1)
    assert gap == starts[0] + size * MIB + 4 * KIB


def test_a_hole_that_would_just_fit_is_passed_by():
    """The search is for size + align - 1 (reference 3.5)."""
    areas = space()
    wall = [areas.allocate(2 * MIB, 2 * MIB) for _ in range(4)]
    assert wall == [BASE + 2 * MIB * i for i in range(4)]
    areas.free(wall[1])
    areas.purge()
    assert areas.allocate(2 * MIB, 2 * MIB) == BASE + 8 * MIB
    assert areas.allocate(2 * MIB, 4 * KIB) == wall[1]


@pytest.mark.parametrize(("cpus", "mib"), [(1, 32), (2, 64), (4, 96), (16, 160), (64, 224), (256, 288)])
def test_purge_threshold(cpus, mib):
    """fls(CPUs) x 32 MiB; 2 CPUs: 16,384 pages, 64 CPUs: 224 MiB (reference 3.5 and 9)."""
    assert space(cpus).lazy_max_pages == mib * MIB >> 12


def test_the_purge_comes_only_above_the_threshold():
    purges: list[Purge] = []
    areas = space(purges=purges)
    starts = [areas.allocate(MIB, 1) for _ in range(65)]
    for start in starts[:64]:
        areas.free(start)
    assert areas.lazy_pages == areas.lazy_max_pages == 16384
    assert purges == []
    assert areas.allocate(MIB, 1) == starts[64] + MIB, "lazily freed addresses are not reused"
    areas.free(starts[64])
    assert purges == [Purge(BASE, BASE + 65 * MIB, 65, 65 * 256)]
    assert areas.allocate(MIB, 1) == BASE


def test_without_free_addresses_it_purges_and_tries_again():
    purges: list[Purge] = []
    areas = space(cpus=1 << 20, purges=purges)
    half = (areas.vmalloc.end - areas.vmalloc.start) // 2
    first, second = (areas.allocate(half, 1) for _ in range(2))
    assert areas.allocate(4 * KIB, 1) is None
    assert purges == []
    areas.busy[first] = areas.busy[first]._replace(pool=-1)
    areas.lazy_max_pages = half
    areas.free(first)
    assert areas.allocate(4 * KIB, 1) == first
    assert len(purges) == 1
    assert second in areas.busy


def test_modules_have_their_own_space_on_x86_and_the_flush_spans_both():
    purges: list[Purge] = []
    areas = space(purges=purges)
    module = areas.allocate(8 * KIB, 1, areas.modules)
    assert module == 0xFFFF_FFFF_A000_0000
    area = areas.allocate(8 * KIB, 1)
    areas.free(module)
    areas.free(area)
    areas.purge()
    assert purges == [Purge(BASE, module + 8 * KIB, 2, 4)]


def test_where_modules_go():
    assert module_space(GEOMETRIES["powerpc64-radix-64k"]).start == 0xC008 << 48
    arm = GEOMETRIES["arm64-4k"]
    assert module_space(arm) == Span(0xFFFF_8000_0000_0000, arm.vmalloc_start)


def test_pools_reuse_the_highest_address_of_their_cpu_first():
    areas = space(pools=True)
    mine = [areas.allocate(20 * KIB, 16 * KIB, cpu=0) for _ in range(4)]
    other = areas.allocate(20 * KIB, 16 * KIB, cpu=1)
    for start in [mine[2], other, mine[0], mine[1]]:
        areas.free(start)
    areas.purge()
    assert areas.allocate(20 * KIB, 16 * KIB, cpu=1) == other
    assert [areas.allocate(20 * KIB, 16 * KIB, cpu=0) for _ in range(3)] == [mine[2], mine[1], mine[0]]


def test_pools_keep_at_most_256_pages_and_give_up_a_quarter_a_purge():
    areas = space(pools=True)
    starts = [areas.allocate(MIB, 1) for _ in range(9)]
    large = areas.allocate(MIB + 4 * KIB, 1)
    for start in [*starts[:8], large]:
        areas.free(start)
    areas.purge()
    assert [len(spans) for spans in areas.pools.values()] == [8]
    areas.purge()
    assert areas.pools[0, MIB] == [Span(s, s + MIB) for s in starts[:6]]
    areas.purge(decay_all=True)
    assert areas.pools == {}
    assert (areas.starts[0], areas.ends[0]) == (BASE, BASE + 8 * MIB)


def test_a_pooled_address_of_wrong_alignment_goes_to_the_back():
    areas = space(pools=True)
    starts = [areas.allocate(20 * KIB, 1) for _ in range(2)]
    for start in starts:
        areas.free(start)
    areas.purge()
    assert areas.allocate(20 * KIB, 16 * KIB) == BASE + 48 * KIB, "20 KiB is not a multiple of 16 KiB"
    assert areas.allocate(20 * KIB, 16 * KIB) == starts[0]


@settings(max_examples=150, deadline=None)
@given(
    st.booleans(),
    st.lists(
        st.tuples(
            st.sampled_from(["vmalloc", "vmalloc", "modules", "free", "free", "purge"]),
            st.integers(1, 700),
            st.sampled_from([0, 0, 2, 9]),
            st.integers(0, 3),
        ),
        max_size=80,
    ),
)
def test_no_two_areas_overlap_and_all_comes_back(pools, steps):
    purges: list[Purge] = []
    areas = space(cpus=4, pools=pools, purges=purges)
    live: dict[int, int] = {}
    freed = 0
    for what, pages, align, cpu in steps:
        if what in ("vmalloc", "modules"):
            within = areas.modules if what == "modules" else areas.vmalloc
            start = areas.allocate(pages << 12, 1 << 12 + align, within, cpu)
            assert start % (1 << 12 + align) == 0
            assert within.start <= start
            assert start + (pages << 12) <= within.end
            live[start] = pages << 12
        elif what == "free" and live:
            start = sorted(live)[pages % len(live)]
            freed += live.pop(start) >> 12
            areas.free(start)
        else:
            areas.purge()
        used = areas.used()
        assert all(a.end <= b.start for a, b in pairwise(used))
        assert set(live) <= {span.start for span in used}
        holes = list(map(Span, areas.starts, areas.ends))
        assert all(a.end < b.start for a, b in pairwise(holes))
        total = sum(s.end - s.start for s in used + holes)
        assert total == sum(s.end - s.start for s in (areas.vmalloc, areas.modules))
        assert areas.lazy_pages == freed - sum(p.pages for p in purges) <= areas.lazy_max_pages
    for start in live:
        areas.free(start)
    areas.purge(decay_all=True)
    assert (areas.starts, areas.ends) == tuple(map(list, zip(areas.vmalloc, areas.modules, strict=True)))


class Event:
    """One line of the recorded events."""

    def __init__(self, line: str) -> None:
        self.cpu = int(re.search(r"\[(\d+)\]", line)[1])
        self.what = re.search(r"vmalloc:(\w+):", line)[1]
        fields = re.findall(r"(\w+)[:=] ?(0x[0-9a-f]+|\d+)", line.split(self.what)[1])
        self.fields = {key: int(value, 0) for key, value in fields}
        self.start = self.fields.get("va_start", 0)


@pytest.fixture(scope="module")
def recorded() -> list[Event]:
    if not SAMPLE.exists():
        pytest.skip("needs the shared samples")
    return [Event(line) for line in SAMPLE.read_text().splitlines() if "vmalloc:" in line]


def test_the_recorded_run(recorded):
    """Backlog, purges and the addresses of all huge areas, step by step.

    Known from the recording and put in: how many areas the backlog holds at the start, from which address
    on, and where huge ones lay; and stacks whose freeing it does not show (the backlog grows by 5 pages
    for each). All else follows from the rules.
    """
    low, first_huge, next_huge = (BASE + offset for offset in (0x12_8000, 0x7A0_0000, 0xA20_0000))
    first = next(i for i, event in enumerate(recorded) if event.what == "purge_vmap_area_lazy")
    frees = [event for event in recorded if event.what == "free_vmap_area_noflush"]
    backlog = frees[0].fields["nr_lazy"] - 5
    count = 784 - sum(event.what == "free_vmap_area_noflush" for event in recorded[:first])

    purges: list[Purge] = []
    areas = space(cpus=2, purges=purges)
    areas.allocate(low - BASE, 1)
    small = [(backlog - (next_huge - first_huge >> 12)) // (count - 1)] * (count - 2)
    small.append(backlog - (next_huge - first_huge >> 12) - sum(small))
    older = [areas.allocate(pages << 12, 1) for pages in small]
    stacks = [areas.allocate(20 * KIB, 1) for _ in range(200)]
    for_small_areas = Span(areas.used()[-1].end, areas.used()[-1].end + MIB)
    areas.allocate(first_huge - for_small_areas.end, 1, Span(for_small_areas.end, first_huge))
    older.append(areas.allocate(next_huge - first_huge, 1, Span(first_huge, next_huge)))
    for start in older:
        areas.free(start)

    size, huge, unseen = {}, [], 0
    for event in recorded:
        if event.what == "alloc_vmap_area":
            size[event.start] = event.fields["size"]
            if event.fields["align"] == 2 * MIB:
                assert areas.allocate(size[event.start], 2 * MIB) == event.start
                huge.append(event.start)
        elif event.what == "free_vmap_area_noflush":
            pages = size.get(event.start, 20 * KIB) >> 12
            while areas.lazy_pages + pages < event.fields["nr_lazy"]:
                areas.free(stacks.pop())
                unseen += 1
            assert areas.lazy_pages + pages == event.fields["nr_lazy"]
            assert areas.lazy_max_pages == event.fields["nr_lazy_max"] == 16384
            areas.free(
                event.start if event.start in huge else areas.allocate(pages << 12, 1, for_small_areas)
            )
        elif event.what == "purge_vmap_area_lazy":
            assert purges[-1].end == event.fields["end"]
            assert purges[-1].areas == event.fields["num_purged"]
    assert [purge.pages for purge in purges] == [16704, 18656]
    assert purges[0].start == low
    assert round((purges[0].end - low) / MIB) == 179
    assert len(huge) == 10
    assert unseen < len(frees)


def test_the_recorded_order_of_stacks(recorded):
    """Stacks come from the pool of their CPU, the highest address first, and after a purge so again."""
    purge = [i for i, event in enumerate(recorded) if event.what == "purge_vmap_area_lazy"]

    def stacks(events):
        wanted = [e for e in events if e.what == "alloc_vmap_area" and e.fields["size"] == 20 * KIB]
        return [event.start for event in wanted if event.cpu == 1]

    between, after = stacks(recorded[purge[0] : purge[1]]), stacks(recorded[purge[1] :])
    assert (len(between), len(after)) == (33, 23)
    areas = space(cpus=2, pools=True)
    areas.allocate(min(between) - BASE, 1)
    made = [areas.allocate(20 * KIB, 16 * KIB, cpu=1) for _ in range(34)]
    assert set(made) - set(between) == {0xFFFF_C900_0788_8000}, "one of that row stayed in use"
    for start in between:
        areas.free(start)
    areas.purge()
    assert [areas.allocate(20 * KIB, 16 * KIB, cpu=1) for _ in between] == between
    for start in sorted(after):
        areas.free(start)
    areas.purge()
    assert [areas.allocate(20 * KIB, 16 * KIB, cpu=1) for _ in after] == after
