"""Every format, written by another hand than the reader's, comes back access for access."""

import gzip
import lzma

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import foreign
from foreign import Access
from pagewalk.hardware.machine import AddressSpaces
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import replay
from pagewalk.trace.open import open_trace
from pagewalk.trace.readers import READERS, named
from pagewalk.trace.trace import KERNEL, RUNNING, STORE, SWITCH
from strategies import machine, tlb

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ADDRESS = st.one_of(
    st.integers(1, (1 << 47) - 1),
    st.integers(0xFFFF_8000_0000_0000, (1 << 64) - 1),
    st.integers(0xFF00_0000_0000_0000, (1 << 64) - 1),  # a kernel with 57-bit addresses
    st.sampled_from(
        [1, 0x1000_0000_0000, 0x7FFF_FFFF_F000, 0xFFFF_C900_0000_0000, 0xFFFF_C901_0000_0000, 2**64 - 1]
    ),
)


def accesses(kinds="load store fetch", sizes=(1, 2, 4, 8, 16, 32, 64, 3, 500), cpus=1, processes=1):
    return st.lists(
        st.builds(
            Access,
            st.sampled_from(kinds.split()),
            ADDRESS,
            st.sampled_from(sizes),
            st.integers(0, cpus - 1),
            st.integers(100, 99 + processes),
        ),
        min_size=1,
        max_size=60,
    )


def read_back(tmp_path, content, name, size=7):
    """(addresses, flags, cpus, trace) of a file whose format is found by its content alone."""
    path = tmp_path / "some.trace"
    path.write_bytes(content)
    (reader,) = [each for each in READERS if each.name == name]
    head = content[: 1 << 16]
    assert next(each for each in READERS if each.recognises(path, head)).name == name
    chunks = list(reader.read(path).read(size))
    assert all(len(chunk.address) <= size for chunk in chunks)
    trace = open_trace(path)
    whole = list(trace.chunks("offset", "flags", "cpu", size=11))
    page = trace.pages[np.concatenate([chunk.page for chunk in whole])]
    address = page << np.uint64(12) | np.concatenate([chunk.offset for chunk in whole])
    assert np.array_equal(address, np.concatenate([chunk.address for chunk in chunks]))
    flags = np.concatenate([chunk.flags for chunk in whole]) if "flags" in trace.columns else None
    cpu = np.concatenate([chunk.cpu for chunk in whole]) if "cpu" in trace.columns else None
    return address.tolist(), flags, cpu, trace


@SETTINGS
@given(accesses())
def test_lackey(tmp_path, made):
    address, flags, _, _ = read_back(tmp_path, foreign.lackey(made), "lackey")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]


@SETTINGS
@given(accesses("load store"))
def test_pinatrace(tmp_path, made):
    address, flags, _, _ = read_back(tmp_path, foreign.pinatrace(made), "pinatrace")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a, size=False) for a in made]


@SETTINGS
@given(accesses(cpus=256))
def test_the_view_tools_text(tmp_path, made):
    address, flags, cpu, _ = read_back(tmp_path, foreign.view(made), "drmemtrace-view")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]


@SETTINGS
@given(accesses(cpus=12))
def test_gem5(tmp_path, made):
    address, flags, cpu, _ = read_back(tmp_path, foreign.gem5(made), "gem5")
    assert address == [a.address for a in made]
    assert (flags & ~np.uint8(KERNEL)).tolist() == [foreign.flags(a, size=False) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]


@SETTINGS
@given(accesses("load store", cpus=200, processes=3))
def test_perf_script(tmp_path, made):
    address, flags, cpu, trace = read_back(tmp_path, foreign.perf(made), "perf")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a, size=False) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]
    check_spaces(trace, made)


@SETTINGS
@given(accesses(cpus=256, processes=4), st.sampled_from(",;\t "), st.sampled_from([10, 16]))
def test_csv(tmp_path, made, separator, base):
    address, flags, cpu, trace = read_back(tmp_path, foreign.csv(made, separator, base), "csv")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]
    check_spaces(trace, made)
    check_switches(trace, made)


@SETTINGS
@given(accesses(cpus=256, processes=4))
def test_parquet(tmp_path, made):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = {
        "Address": pa.array([a.address for a in made], pa.uint64()),
        "note": ["x"] * len(made),
        "kind": [a.kind for a in made],
        "size": pa.array([a.size for a in made], pa.int16()),
        "cpu": pa.array([a.cpu for a in made], pa.uint8()),
        "pid": [a.process for a in made],
    }
    pq.write_table(pa.table(columns), tmp_path / "t", row_group_size=13)
    address, flags, cpu, trace = read_back(tmp_path, (tmp_path / "t").read_bytes(), "parquet")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]
    check_spaces(trace, made)
    check_switches(trace, made)


@SETTINGS
@given(accesses(cpus=256, processes=4))
def test_drmemtrace(tmp_path, made):
    address, flags, cpu, trace = read_back(tmp_path, foreign.drmemtrace(made), "drmemtrace")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]
    check_spaces(trace, made)
    check_switches(trace, made)


@st.composite
def instructions(draw):
    """Accesses as ChampSim has them: a fetch, up to four loads, up to two stores."""
    made = []
    for _ in range(draw(st.integers(1, 20))):
        made.append(Access("fetch", draw(ADDRESS), 1))
        made += [Access("load", draw(ADDRESS)) for _ in range(draw(st.integers(0, 4)))]
        made += [Access("store", draw(ADDRESS)) for _ in range(draw(st.integers(0, 2)))]
    return made


@SETTINGS
@given(instructions())
def test_champsim(tmp_path, made):
    address, flags, _, _ = read_back(tmp_path, foreign.champsim(made), "champsim")
    assert address == [a.address for a in made]
    assert (flags & ~np.uint8(KERNEL)).tolist() == [foreign.flags(a) for a in made]


@SETTINGS
@given(accesses(sizes=(1, 2, 4, 8, 16, 32, 64), cpus=256))
def test_captures(tmp_path, made):
    address, flags, cpu, _ = read_back(tmp_path, foreign.capture(made), "capture")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]
    assert cpu.tolist() == [a.cpu for a in made]


@SETTINGS
@given(
    accesses(sizes=(1, 2, 4, 8, 16, 32, 64)).map(lambda made: [Access("load", 0xFFFF_C900_0000_0000), *made])
)
def test_captures_without_a_header_are_of_kernels_with_48_bits(tmp_path, made):
    made = [
        a._replace(address=a.address | 0xFFFF << 48 if a.address >> 47 & 1 else a.address % 2**47)
        for a in made
    ]
    address, flags, cpu, _ = read_back(tmp_path, foreign.old_capture(made), "capture")
    assert address == [a.address for a in made]
    assert flags.tolist() == [foreign.flags(a) for a in made]
    assert cpu is None


def check_spaces(trace, made):
    """Pages are told apart by process in the lower half; the upper half is everyone's."""
    numbers = {}
    expected = set()
    for access in made:
        space = numbers.setdefault(access.process, len(numbers) + 1)
        expected.add((access.address >> 12, 0 if foreign.kernel(access.address) else space))
    found = set(zip(trace.pages.tolist(), trace.spaces.tolist(), strict=True))
    assert found == expected
    assert len(trace.pages) == len(expected)


def check_switches(trace, made):
    """A CPU's events lie exactly where its process in the lower half changes; the first names both."""
    numbers, running, expected = {}, {}, []
    for position, access in enumerate(made):
        space = numbers.setdefault(access.process, len(numbers) + 1)
        if not foreign.kernel(access.address):
            before = running.setdefault(access.cpu, space)
            if before != space:
                if all(cpu != access.cpu for _, cpu, _, _ in expected):
                    expected.append((position, access.cpu, before, RUNNING))
                expected.append((position, access.cpu, space, SWITCH))
            running[access.cpu] = space
    events = trace.events
    found = [] if events is None else events[["position", "cpu", "space", "kind"]].tolist()
    assert found == expected


@pytest.mark.parametrize(("slots", "misses"), [(0, 3), (1, 3), (2, 2)])
def test_the_process_that_a_cpu_began_with_takes_a_slot(tmp_path, slots, misses):
    """One process, another, the first again: its entry is there still where two address spaces have slots."""
    path = tmp_path / "two.csv"
    path.write_text("address,process\n0x5000,7\n0x6000,8\n0x5000,7\n")
    trace = open_trace(path)
    one = machine(tlb(1, 8), spaces=AddressSpaces(slots=slots))
    found = replay(trace, map_trace(trace.pages, None, "base"), one)
    assert found.counts["l1_dtlb_misses"] == misses
    assert found.counts["context_switches"] == 2


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress], ids=["gz", "xz"])
def test_packed_files_are_the_same_trace(tmp_path, pack):
    made = [Access("fetch", 0xFFFFFFFF81000000, 1), Access("load", 0x7FFE00001000), Access("store", 0x10)]
    plain, packed = tmp_path / "a.champsim", tmp_path / "a.champsim.pack"
    plain.write_bytes(foreign.champsim(made))
    packed.write_bytes(pack(foreign.champsim(made)))
    first, second = open_trace(plain), open_trace(packed)
    assert first.pages.tolist() == second.pages.tolist()
    assert first.digest() == second.digest()


def test_a_format_can_be_named(tmp_path):
    """Decimal addresses alone look like CSV; named gem5, the file has no access."""
    path = tmp_path / "x.txt"
    path.write_bytes(b"4096\n18446744073709551615\n")
    assert open_trace(path).pages.tolist() == [1, (1 << 52) - 1]
    assert open_trace(path, "csv").accesses == 2
    assert named("gem5").about.startswith("gem5")


def test_gem5_lines_of_several_versions(tmp_path):
    """Lines as gem5 of 2011, 2021 and its MemTest print them, with what is said beside them."""
    lines = b"""\
**** REAL SIMULATION ****
info: Entering event queue @ 0.  Starting simulation...
  77000: system.cpu T0 : @_start    : xor   rbp, rbp
 187000: system.cpu T0 : @_start+6.0  :   POP_R : ld   t1, SS:[rsp] : MemRead :  D=0x1 A=0x7fffffffee30
2457500: system.cpu3: A0 T0 : 0x6224 @_malloc_r+644    :   stp x27, x28, [sp]
2457500: system.cpu3: A0 T0 : 0x6224 @_malloc_r+644. 0 :   addxi_uop   ureg0, sp, #80 : IntAlu :  D=0x14f30
2457500: system.cpu3: A0 T0 : 0x6224 @_malloc_r+644. 2 :   strxi_uop x28 : MemWrite :  D=0x0 A=0x14f38
9000: system.cpu: T0 : 0xffffffff80000034. 0 : amoswap_w a6, (a6)  : MemRead :  D=0x0 A=0xffffffff80040000
9100: system.cpu: T0 : 0x200 @g : vse64_v v1, (x2) : SimdUnitStrideStore :  D=0x0 A=0x3000 flags=(IsVector)
  500: system.cpu.icache: access for ReadReq [10000:1003f] IF miss
  100: system.tester7: Initiating write at addr 100044 (blk 100040) value 9c
  110: system.tester7: Completing write at address 100044 (blk 100040) success
  120: system.tester7: Initiating functional read at addr 0x2d (blk 0x0) expecting 0
"""
    address, flags, cpu, _ = read_back(tmp_path, lines, "gem5")
    assert [(hex(a), int(f), int(c)) for a, f, c in zip(address, flags, cpu, strict=True)] == [
        ("0x7fffffffee30", 0, 0),  # the instruction's own address is not printed, only its symbol
        ("0x6224", 0x20, 3),  # fetched once, though line and first micro-operation both name it
        ("0x14f38", STORE, 3),
        ("0xffffffff80000034", 0x20 | KERNEL, 0),
        ("0xffffffff80040000", KERNEL, 0),
        ("0x200", 0x20, 0),
        ("0x3000", STORE, 0),
        ("0x100044", STORE, 7),
        ("0x2d", 0, 7),
    ]


def test_drmemtrace_bundles_and_instructions_without_fetch(tmp_path):
    """A bundle's bytes are the lengths of the instructions after the one before it (trace_entry.h)."""
    entry = foreign.struct.Struct("<HHQ").pack
    content = entry(25, 0, 5) + entry(24, 4, 9)
    content += entry(10, 3, 0x1000) + entry(17, 4, 0x0204_0501) + entry(29, 2, 0x5000) + entry(0, 8, 0x9000)
    address, flags, _, _ = read_back(tmp_path, content + entry(26, 0, 0), "drmemtrace")
    assert [hex(a) for a in address] == ["0x1000", "0x1003", "0x1004", "0x1009", "0x100d", "0x9000"]
    assert [int(f) >> 5 for f in flags] == [1, 1, 1, 1, 1, 0]
