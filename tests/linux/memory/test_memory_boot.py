"""A boot on a modelled machine: its hash tables where there is room for them, and where there is not."""

import pytest

from kernels_in_memory import GIB, check, kernel
from pagewalk.errors import BadInput
from pagewalk.linux.boot import BootTables
from pagewalk.linux.geometry import MIB
from pagewalk.linux.memory.pages import Pages

RANGES = {0: [(4 * GIB, 4 * GIB + 256 * MIB)]}
TWO = {0: [(4 * GIB, 4 * GIB + 256 * MIB)], 1: [(5 * GIB, 5 * GIB + 256 * MIB)]}


def booted(ranges, hold):
    """Boot with all memory taken but `hold` bytes; the sizes of tables follow from the machine's memory."""
    linux = kernel("6.12", ranges=ranges, booted=False)
    held = []
    for order in (10, 6, 0):
        while linux.memory.free_frames() - (1 << order) >= hold >> 12:
            held.append((linux.memory.take(order), order))
    linux.apply(BootTables())
    check(linux, sum(1 << order for _, order in held))
    return linux


def sizes(linux):
    areas = {name: area.asked_bytes for name, area in linux.areas.items() if not name.endswith(".pages")}
    return areas | {name: block.size_bytes for name, block in linux.part(Pages).blocks.items()}


@pytest.mark.parametrize("ranges", [RANGES, TWO])
def test_with_room_every_table_has_the_size_of_the_formula(ranges):
    linux = booted(ranges, 200 * MIB)
    assert linux.counts["hash_tables_halved"] == 0
    memory = sum(end - start for node in ranges.values() for start, end in node)
    assert sizes(linux)["Dentry cache"] == memory >> 13 << 3
    assert ("Dentry cache" in linux.areas) == (ranges is TWO), "on one node it lies in the direct map"


@pytest.mark.parametrize(("ranges", "kib"), [(RANGES, 700), (TWO, 1300)])
def test_without_room_tables_are_halved_until_they_fit(ranges, kib):
    """All tables need 822 and 1,332 KiB, by the formula; the first ones are served whole."""
    full, short = sizes(booted(ranges, 200 * MIB)), booted(ranges, kib << 10)
    assert short.counts["hash_tables_halved"] > 0
    factors = {name: full[name] // size for name, size in sizes(short).items()}
    assert set(factors) == set(full)
    assert all(factor & (factor - 1) == 0 for factor in factors.values())
    assert sum(factor.bit_length() - 1 for factor in factors.values()) == short.counts["hash_tables_halved"]


def test_without_any_memory_the_kernel_panics():
    with pytest.raises(BadInput, match="panics"):
        booted(RANGES, 0)
