"""Files that the real tools wrote, compared with a second, short reading of the same file.

true.lackey: valgrind 3.19 on /bin/true, cut out of the middle. perf-script-addr.txt: perf 6.1 record -d -e
page-faults -c 1 /bin/ls, perf script -F +addr. perf-script-faults.txt: perf 6.1 record -e
exceptions:page_fault_*, perf script. trace-cmd-report.txt: trace-cmd 3.1 in a guest of tools/kernel-trace.
"""

import re

import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.trace.open import open_trace
from pagewalk.trace.trace import FETCH, KERNEL, STORE
from places import OUTSIDE, TEST_DATA

DATA = TEST_DATA / "formats"


def read(path):
    """(addresses, flags, cpus) of a trace."""
    trace = open_trace(path)
    chunks = list(trace.chunks("offset", "flags", "cpu"))
    page, offset, flags, cpu = (
        np.concatenate([getattr(chunk, name) for chunk in chunks])
        if getattr(chunks[0], name) is not None
        else None
        for name in ("page", "offset", "flags", "cpu")
    )
    return (trace.pages[page] << np.uint64(12) | offset).tolist(), flags, cpu


def test_lackey_of_true():
    accesses = []
    for line in (DATA / "true.lackey").read_text().splitlines():
        if line.startswith("=="):
            continue
        address, size = line[3:].split(",")
        for kind in {"I": [FETCH], "L": [0], "S": [STORE], "M": [0, STORE]}[line[:2].strip()]:
            accesses.append((int(address, 16), kind, int(size)))
    address, flags, _ = read(DATA / "true.lackey")
    assert address == [address for address, _, _ in accesses]
    assert (flags & ~np.uint8(7)).tolist() == [kind for _, kind, _ in accesses]
    sizes = 1 << (flags & 7).astype(int)
    assert all(size // 2 < real <= size for size, (_, _, real) in zip(sizes, accesses, strict=True))
    assert len(address) > 1900
    assert {0, STORE, FETCH} == set((flags & 0x38).tolist())


def test_perf_script_with_addresses():
    lines = (DATA / "perf-script-addr.txt").read_text().splitlines()
    expected = [int(re.search(r"page-faults: +([0-9a-f]+) ", line)[1], 16) for line in lines]
    address, flags, _ = read(DATA / "perf-script-addr.txt")
    assert address == expected
    assert len(expected) > 100
    in_kernel = [bool(re.search(r" ffffffff[0-9a-f]{8} ", line)) for line in lines]
    assert (flags & KERNEL != 0).tolist() == in_kernel
    assert 0 < sum(in_kernel) < len(lines)


@pytest.mark.parametrize("name", ["perf-script-faults.txt", "trace-cmd-report.txt"])
def test_page_fault_events(name):
    pattern = r"\[(\d+)\].*address=0x([0-9a-f]+) .*error_code=0x([0-9a-f]+)"
    found = re.findall(pattern, (DATA / name).read_text())
    address, flags, cpu = read(DATA / name)
    assert address == [int(a, 16) for _, a, _ in found]
    assert cpu.tolist() == [int(c) for c, _, _ in found]
    codes = np.array([int(code, 16) for _, _, code in found])
    assert np.array_equal(flags & STORE != 0, codes & 2 != 0)  # X86_PF_WRITE
    assert np.array_equal(flags & KERNEL == 0, codes & 4 != 0)  # X86_PF_USER
    assert np.array_equal(flags & FETCH != 0, codes & 16 != 0)  # X86_PF_INSTR
    assert len(found) > 50
    assert all(
        0 < each.sum() < len(found) for each in (flags & STORE != 0, flags & KERNEL != 0, flags & FETCH != 0)
    )


def test_perf_script_tells_processes_apart():
    trace = open_trace(DATA / "trace-cmd-report.txt")
    names = set(re.findall(r"-(\d+) ", (DATA / "trace-cmd-report.txt").read_text()))
    assert set(trace.spaces.tolist()) <= set(range(len(names) + 1))
    assert len(set(trace.spaces.tolist()) - {0}) == len(names) > 1


def test_perf_script_without_addresses_is_refused(tmp_path):
    """What stands after the event there is the instruction, which is no data address."""
    path = tmp_path / "script.txt"
    text = (DATA / "perf-script-addr.txt").read_text()
    path.write_text(re.sub(r"page-faults: +[0-9a-f]+ \S+ \([^)]*\) ", "page-faults:  ", text))
    assert "ffffffff" in path.read_text()
    with pytest.raises(BadInput, match=r"no accesses.*perf script -F \+addr"):
        open_trace(path)


@pytest.mark.skipif(not OUTSIDE.exists(), reason="the shared samples are not here")
@pytest.mark.parametrize(
    ("name", "accesses"),
    [
        ("perf-script-addr-fields.txt", 40),
        ("perf-script-callchain-6.1tool.txt", 0),
        ("perf-script-vmalloc-events-6.18.txt", 0),
    ],
)
def test_shared_samples(name, accesses):
    path = OUTSIDE / "reference" / "samples" / name
    if accesses:
        assert open_trace(path).accesses == accesses
    else:
        with pytest.raises(BadInput, match="no accesses"):
            open_trace(path)


@pytest.mark.skipif(not OUTSIDE.exists(), reason="the shared traces are not here")
def test_an_independent_unpacking_of_a_shared_trace_agrees():
    """Packed as a capture without a header, a real kernel trace comes back record for record."""
    trace = open_trace(OUTSIDE / "traces" / "gitdiff-small")
    chunk = next(trace.chunks("offset", "flags", size=200_000))
    address = trace.pages[chunk.page] << np.uint64(12) | chunk.offset
    word = address & np.uint64((1 << 48) - 1) | chunk.flags.astype(np.uint64) << np.uint64(48)
    from pagewalk.kernels.trace.parse.records import capture

    out = np.empty(len(word), np.int64), np.empty(len(word), np.uint8), np.empty(len(word), np.uint8)
    count, notes, _ = capture(word.view(np.int64), 48, 0, *out, np.empty((len(word), 3), np.int64))
    assert (count, notes) == (len(word), 0)
    assert np.array_equal(out[0].view(np.uint64), address)
    assert np.array_equal(out[1], chunk.flags)
