"""Page-table geometries as arithmetic, and a recorded layout under other geometries than its own."""

import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES, geometry
from pagewalk.linux.layout import Area, Layout, check_areas, no_runs, read_layout
from pagewalk.linux.mapping import map_trace
from places import OUTSIDE

TRACES = OUTSIDE / "traces"
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
FOLDER = TRACES / "bpfhash"

# reference section 6: top-to-bottom index bits, base page, contPTE, PMD, PUD; 0 where there is none
SECTION_6 = {
    "x86-64": ([9, 9, 9, 9], 4 * KIB, 0, 2 * MIB, GIB),
    "x86-64-5level": ([9, 9, 9, 9, 9], 4 * KIB, 0, 2 * MIB, GIB),
    "arm64-4k": ([9, 9, 9, 9], 4 * KIB, 16, 2 * MIB, GIB),
    "arm64-4k-39bit": ([9, 9, 9], 4 * KIB, 16, 2 * MIB, GIB),
    "arm64-4k-52bit": ([4, 9, 9, 9, 9], 4 * KIB, 16, 2 * MIB, GIB),
    "arm64-16k": ([1, 11, 11, 11], 16 * KIB, 128, 32 * MIB, 0),
    "arm64-16k-47bit": ([11, 11, 11], 16 * KIB, 128, 32 * MIB, 0),
    "arm64-64k": ([6, 13, 13], 64 * KIB, 32, 512 * MIB, 0),
    "arm64-64k-42bit": ([13, 13], 64 * KIB, 32, 512 * MIB, 0),
    "arm64-64k-52bit": ([10, 13, 13], 64 * KIB, 32, 512 * MIB, 0),
    "powerpc64-radix-4k": ([13, 9, 9, 9], 4 * KIB, 0, 2 * MIB, GIB),
    "powerpc64-radix-64k": ([13, 9, 9, 5], 64 * KIB, 0, 2 * MIB, GIB),
    "riscv-sv39": ([9, 9, 9], 4 * KIB, 0, 2 * MIB, GIB),
    "riscv-sv48": ([9, 9, 9, 9], 4 * KIB, 0, 2 * MIB, GIB),
    "riscv-sv57": ([9, 9, 9, 9, 9], 4 * KIB, 0, 2 * MIB, GIB),
}
ADDRESS_BITS = {
    "x86-64": 48, "x86-64-5level": 57, "arm64-4k": 48, "arm64-4k-39bit": 39, "arm64-4k-52bit": 52,
    "arm64-16k": 48, "arm64-16k-47bit": 47, "arm64-64k": 48, "arm64-64k-42bit": 42, "arm64-64k-52bit": 52,
    "powerpc64-radix-4k": 52, "powerpc64-radix-64k": 52, "riscv-sv39": 39, "riscv-sv48": 48, "riscv-sv57": 57,
}  # fmt: skip


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry_is_section_6_of_the_reference(name):
    bits, base, contiguous, pmd, pud = SECTION_6[name]
    g = geometry(name)
    assert list(reversed(g.index_bits)) == bits
    assert sum(bits) + base.bit_length() - 1 == ADDRESS_BITS[name]
    sizes = {"base": base, "contPTE": contiguous * base, "PMD": pmd, "PUD": pud}
    assert {leaf.name: 1 << leaf.shift for leaf in g.leaves} == {k: v for k, v in sizes.items() if v}
    for leaf in g.leaves:
        lower = sum(g.index_bits[: leaf.level - 1]) + g.base_shift
        assert leaf.shift == lower + (contiguous.bit_length() - 1 if leaf.name == "contPTE" else 0)
        assert g.entry_shift(leaf.level) == lower
        assert leaf.level <= g.levels
        assert leaf.vmalloc == (leaf.name != "PUD")
    assert [leaf.shift for leaf in g.leaves] == sorted({leaf.shift for leaf in g.leaves})
    shifts = np.array([leaf.shift for leaf in g.leaves], np.uint8)
    assert g.leaf_level(shifts).tolist() == [leaf.level for leaf in g.leaves]
    assert g.table_bytes(1) == 8 * 2 ** bits[-1]


def test_every_geometry_is_checked():
    assert set(SECTION_6) == set(GEOMETRIES) == set(ADDRESS_BITS)


def test_table_pages_of_powerpc_64k_are_256_bytes():
    assert geometry("powerpc64-radix-64k").table_bytes(1) == 256


@pytest.mark.parametrize(
    ("name", "start", "size"),
    [
        ("x86-64", 0xFFFFC90000000000, 32 * TIB),
        ("x86-64-5level", 0xFFA0000000000000, 12800 * TIB),
        ("powerpc64-radix-4k", 0xC008000000000000, 512 * TIB),
        ("powerpc64-radix-64k", 0xC008000000000000, 512 * TIB),
        ("riscv-sv39", 0xFFFFFFC600000000, 64 * GIB),
        ("riscv-sv48", 0xFFFF8F8000000000, 32 * TIB),
        ("riscv-sv57", 0xFF20000000000000, 16384 * TIB),
    ],
)
def test_vmalloc_space_is_section_3_5_of_the_reference(name, start, size):
    g = geometry(name)
    assert (g.vmalloc_start, g.vmalloc_end - g.vmalloc_start) == (start, size)


@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name.startswith("arm64")])
def test_vmalloc_space_of_arm64(name):
    """From 2 GiB above the middle of the kernel's half to 8 MiB below vmemmap, which ends 1 GiB below 0."""
    g = geometry(name)
    bits = ADDRESS_BITS[name]
    assert g.vmalloc_start == 2**64 - 2 ** (min(bits, 48) - 1) + 2 * GIB
    linear_pages = (2**bits - 2 ** (min(bits, 48) - 1)) >> g.base_shift
    assert g.vmalloc_end + 8 * MIB + 64 * linear_pages + GIB == 2**64
    assert g.vmalloc_start < g.vmalloc_end


def test_unknown_geometry_names_the_known_ones():
    with pytest.raises(BadInput, match=r"x86_64.*x86-64, "):
        geometry("x86_64")
    with pytest.raises(BadInput, match=r"contPTE.*base, PMD, PUD"):
        geometry("x86-64").leaf("contPTE")


def plain_tables(g, leaves):
    """Bytes of the tables above the given (address, level), root excluded."""
    tables = {
        (level, address >> g.entry_shift(level + 1))
        for address, leaf_level in leaves
        for level in range(leaf_level, g.levels)
    }
    return sum(8 << g.index_bits[level - 1] for level, _ in tables)


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the real traces are not beside this checkout")
@pytest.mark.parametrize("name", [name for name in GEOMETRIES if name != "x86-64"])
@pytest.mark.parametrize("mapping_name", ["base", "pmd", "contpte"])
def test_real_layout_elsewhere(name, mapping_name):
    g = geometry(name)
    layout = read_layout(FOLDER)
    first_pages = np.array([area.start >> 12 for area in layout.areas], np.uint64)
    pages = np.unique(np.append(np.load(FOLDER / "pages.npy"), first_pages))
    leaf_name = {"base": "base", "pmd": "PMD", "contpte": "contPTE"}[mapping_name]
    if leaf_name not in [leaf.name for leaf in g.leaves]:
        with pytest.raises(BadInput, match="contPTE"):
            map_trace(pages, layout, mapping_name, geometry=g)
        return
    mapping = map_trace(pages, layout, mapping_name, geometry=g)
    large = next(leaf for leaf in g.leaves if leaf.name == leaf_name)

    waste = 0
    in_areas = np.zeros(len(pages), bool)
    previous_end = g.vmalloc_start
    for number, (area, region) in enumerate(zip(layout.areas, mapping.regions, strict=False)):
        mine = mapping.region == number
        in_areas |= mine
        payload = area.size_bytes - 4096
        in_space = 0xFFFFC90000000000 <= area.start < 0xFFFFE90000000000
        fits = (
            in_space and payload >= 1 << large.shift and area.kind == "vmalloc" and not area.is_stack
            and not area.caller.startswith("pcpu_")
        )  # fmt: skip
        leaf = large if fits else g.leaves[0]
        assert mine.any()
        if not area.kind:
            assert (region.leaf, region.waste_bytes) == ("", 0)
            continue
        assert region.leaf == leaf.name
        assert (mapping.leaf_shift[mine] == leaf.shift).all() or not in_space
        size = -(-payload // (1 << leaf.shift)) << leaf.shift
        assert region.waste_bytes == size - payload
        waste += size - payload
        # offsets within the area stay, the start is aligned to the leaf
        starts = (mapping.page[mine] << 12) - (
            (pages[mine].astype(np.int64) << 12) - (area.start - (1 << 64))
        )
        assert len(set(starts.tolist())) == 1
        start = int(starts[0]) % (1 << 64)
        if in_space:
            assert start % (1 << leaf.shift) == 0
            assert previous_end <= start
            assert start + size + (1 << g.base_shift) <= g.vmalloc_end
            previous_end = start + size + (1 << g.base_shift)
        else:
            assert start == area.start
    np.testing.assert_array_equal(mapping.page[~in_areas], pages[~in_areas].astype(np.int64))
    assert mapping.memory["rounding_waste"] == waste
    sizes = [leaf.shift for leaf in g.leaves]
    was = map_trace(pages, layout, "recorded").leaf_shift
    for got, recorded in zip(mapping.leaf_shift[~in_areas], was[~in_areas], strict=True):
        assert got == max([s for s in sizes if s <= recorded], default=g.base_shift)
    # two 4 KiB pages of one leaf lie in one block of frames, as aligned as the leaf
    order = mapping.leaf_shift.astype(np.int64) - 12
    assert (mapping.frame & ((1 << order) - 1) == mapping.page & ((1 << order) - 1)).all()
    assert (mapping.contiguous_shift >= mapping.leaf_shift).all()


def test_page_tables_of_a_small_layout_elsewhere():
    """600 base pages of 4 KiB under 64 KiB pages: one PTE table; as contiguous PTEs the same, rounded up."""
    start = 0xFFFFC90000000000
    area = Area(start, start + 601 * 4096, 601 * 4096, "f")
    x86 = GEOMETRIES["x86-64"]
    layout = Layout(x86, check_areas([area], x86, "test"), no_runs(), no_runs())
    pages = np.array([start >> 12], np.uint64)
    for name, mapping_name, leaf_bytes, level in [
        ("arm64-64k", "base", 64 * KIB, 1),
        ("arm64-64k", "contpte", 2 * MIB, 1),
        ("powerpc64-radix-64k", "base", 64 * KIB, 1),
        ("powerpc64-radix-64k", "pmd", 2 * MIB, 2),
        ("riscv-sv57", "pmd", 2 * MIB, 2),
        ("x86-64-5level", "base", 4 * KIB, 1),
    ]:
        g = geometry(name)
        size = -(-600 * 4096 // leaf_bytes) * leaf_bytes
        step = 1 << g.entry_shift(level)
        leaves = [(g.vmalloc_start + offset, level) for offset in range(0, size, step)]
        mapping = map_trace(pages, layout, mapping_name, geometry=g)
        assert mapping.memory == {
            "page_tables": plain_tables(g, leaves),
            "rounding_waste": size - 600 * 4096,
        }, name


def test_percpu_chunks_at_the_top_still_fit_a_small_space():
    """Percpu chunks lie at the end of the 32 TiB of x86-64; Sv39 has 64 GiB."""
    x86, sv39 = GEOMETRIES["x86-64"], geometry("riscv-sv39")
    low, high = x86.vmalloc_start, x86.vmalloc_end - 8192
    areas = [Area(low, low + 8192, 8192), Area(high, high + 8192, 8192, "pcpu_get_vm_areas")]
    layout = Layout(x86, check_areas(areas, x86, "test"), no_runs(), no_runs())
    pages = np.array([low >> 12, high >> 12], np.uint64)
    mapping = map_trace(pages, layout, "base", geometry=sv39)
    assert mapping.page.tolist() == [sv39.vmalloc_start >> 12, (sv39.vmalloc_start >> 12) + 2]


def test_pages_larger_than_the_traces_own():
    with pytest.raises(BadInput, match="65536"):
        map_trace(np.array([1], np.uint64), None, "base", page_shift=16)
    mapping = map_trace(np.array([3], np.uint64), None, "base", 16, geometry=geometry("arm64-64k"))
    assert (mapping.page.tolist(), mapping.leaf_shift.tolist()) == ([48], [16])
