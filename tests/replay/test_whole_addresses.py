"""Addresses stay whole on every path, and processes and CPUs apart: from a file to the misses of a replay."""

import json
import sys

import numpy as np
import pytest

from pagewalk.cli import main
from pagewalk.hardware.load import load
from pagewalk.linux.mapping import map_trace
from pagewalk.replay.engine import replay
from pagewalk.study.sampling import windows
from pagewalk.trace.cut import Wanted, cut
from pagewalk.trace.open import open_trace
from pagewalk.trace.trace import RUNNING, SWITCH, from_addresses
from reference import LOAD, STORE, simulate

ADDRESSES = [
    0x0,
    0x1_0000_0008,
    0x2_0000_0008,
    0x0000_7FFF_FFFF_F010,
    0x00FF_FFFF_FFFF_E018,
    0xFF11_0000_0000_0020,
    0xFFFF_8880_0000_0028,
    0xFFFF_C900_0000_0030,
    0xFFFF_C901_0000_0030,
    0xFFFF_FFFF_8000_0038,
    0xFFFF_FFFF_FFFF_FFF8,
]
"""Both halves, four levels and five, 4 GiB and more apart, alike in their low 32 and 48 bits, both ends."""


def addresses(trace):
    chunks = trace.chunks("offset", size=3)
    return [
        int(trace.pages[page]) << 12 | int(offset)
        for chunk in chunks
        for page, offset in zip(chunk.page, chunk.offset, strict=True)
    ]


@pytest.fixture
def pagewalk(monkeypatch, capsys):
    """Call the command line; its standard output."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pagewalk", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def files(tmp_path, pagewalk):
    """The same accesses as files of several formats, and as folders made of them."""
    np.save(tmp_path / "a.npy", np.array(ADDRESSES, np.uint64))
    (tmp_path / "a.csv").write_text("address\n" + "".join(f"{address:#x}\n" for address in ADDRESSES))
    lackey = "".join(f" L {address:x},8\n" for address in ADDRESSES)
    (tmp_path / "a.lackey").write_text("==1== Lackey, an example Valgrind tool\n" + lackey)
    found = [tmp_path / "a.npy", tmp_path / "a.csv", tmp_path / "a.lackey"]
    for source in found[:]:
        for option in ([], ["--plain"], ["--records", "0:"])[: 3 if source.suffix == ".npy" else 1]:
            found.append(tmp_path / f"folder{len(found)}")
            pagewalk("trace", "convert", source, found[-1], *option)
    return found


def test_from_every_file_and_folder(files):
    assert len(files) == 8
    for file in files:
        assert addresses(open_trace(file)) == ADDRESSES, file


def test_info_and_parts_of_it(files, pagewalk):
    pages = {address >> 12 for address in ADDRESSES}
    ends = [(address, address + 1) for address in ADDRESSES]
    for file in files[:1] + files[-1:]:
        info = json.loads(pagewalk("trace", "info", file, "--json", "-"))
        assert info["distinct_base_pages"] == info["data"]["base_pages"] == len(pages) == len(ADDRESSES)
        named = {part["name"]: part["accesses"] for part in info["ranges"]}
        assert named == {
            "user": 5,
            "vmalloc space": 2,
            "direct map": 1,
            "kernel image": 1,
            "other": 2,  # the five-level direct map, which this geometry has not; the last page
        }
        for end in ends:
            assert addresses(cut(open_trace(file), wanted=Wanted((end,)))) == [end[0]]


def test_replayed_they_are_as_many_pages(files):
    """Each twice on a TLB that holds all: one miss for each distinct page, none more."""
    machine = load("textbook-fullassoc")
    trace = from_addresses("t", np.array(ADDRESSES * 2, np.uint64))
    counts = replay(trace, map_trace(trace.pages, None, "base"), machine).counts
    assert counts["stlb_misses"] == counts["l1_dtlb_misses"] == len(ADDRESSES)


@pytest.mark.parametrize("base", [0x1000, 0xFF11_0000_0000_0000, 0xFFFF_FFFE_0000_0000])
def test_synthetic_and_sampled(base, monkeypatch):
    for figure in ("LEAD_IN", "LEAST"):
        monkeypatch.setattr(windows, figure, 64)
    trace = open_trace(f"synth:uniform?size=8G&accesses=20000&base={base:#x}")
    assert base <= min(addresses(trace)) < base + (1 << 28)
    assert base + (7 << 30) < max(addresses(trace)) < base + (8 << 30)
    cells = [(load("textbook-setassoc"), map_trace(trace.pages, None, "base"))]
    taken = windows.sample(trace, cells).trace
    assert taken.pages.tolist() == trace.pages.tolist()


# ---------------------------------------------------------------- several CPUs, several processes

ROWS = [
    # CPU, process, address, kind
    (0, 71, 0x1000, "R"),
    (0, 71, 0xFFFF_C900_0000_0000, "R"),
    (1, 72, 0x1000, "W"),
    (1, 72, 0xFFFF_C900_0000_0000, "R"),
    (0, 72, 0x1000, "R"),
    (0, 72, 0xFFFF_C900_0000_0000, "R"),
    (0, 71, 0x1000, "R"),
    (0, 71, 0xFFFF_C900_0000_0000, "W"),
    (1, 72, 0x1000, "R"),
]


@pytest.fixture
def several(tmp_path, pagewalk):
    """Two processes on two CPUs, with a page at one address each, and a page of the kernel."""
    lines = [f"{cpu},{process},{address:#x},{kind}" for cpu, process, address, kind in ROWS]
    (tmp_path / "s.csv").write_text("\n".join(["cpu,pid,address,kind", *lines]) + "\n")
    pagewalk("trace", "convert", tmp_path / "s.csv", tmp_path / "s")
    return tmp_path / "s"


def test_a_folder_and_info_tell_processes_and_cpus_apart(several, pagewalk):
    trace = open_trace(several)
    assert trace.cpus == 2
    found = sorted(zip(trace.pages.tolist(), trace.spaces.tolist(), strict=True))
    assert found == [(0x1, 1), (0x1, 2), (0xFFFF_C900_0000_0, 0)]  # the kernel's is shared by all
    assert [(int(e["position"]), int(e["cpu"]), int(e["space"]), int(e["kind"])) for e in trace.events] == [
        (4, 0, 1, RUNNING),  # who was there from the start
        (4, 0, 2, SWITCH),
        (6, 0, 1, SWITCH),
    ]
    info = json.loads(pagewalk("trace", "info", several, "--json", "-"))
    assert info["records_by_cpu"] == [6, 3]
    assert {part["name"]: part["accesses"] for part in info["spaces"]} == {"0": 4, "1": 2, "2": 3}
    assert info["events"] == 3


@pytest.mark.parametrize(
    ("machine", "missed"),
    [
        # without tags a switch drops what is not global: CPU 0 misses 0x1000 of 71, of 72, and of 71 again
        ("textbook-setassoc", [0, 1, 2, 3, 4, 6]),
        ("amd-zen2-rome", [0, 1, 2, 3, 4, 6]),
        # with them both stay; the kernel's page is global and stays in any case
        ("intel-skylake-sp", [0, 1, 2, 3, 4]),
        ("amd-zen3-milan", [0, 1, 2, 3, 4]),
        ("arm-neoverse-n1", [0, 1, 2, 3, 4]),
    ],
)
def test_a_switch_keeps_what_the_machine_tags(several, machine, missed):
    """By hand, and by the oracle."""
    hardware, trace = load(machine), open_trace(several)
    mapping = map_trace(trace.pages, None, "base", spaces=trace.spaces)
    found = []
    counts = replay(trace, mapping, hardware, on_misses=lambda l1, stlb: found.extend(stlb.tolist())).counts
    assert found == missed
    assert counts["context_switches"] == 2  # CPU 0 goes to 72 and back; CPU 1 stays with 72
    (chunk,) = trace.chunks("cpu", "flags")
    oracle = simulate(
        hardware,
        trace.pages.tolist(),
        mapping,
        chunk.page.tolist(),
        [STORE if kind == "W" else LOAD for *_, kind in ROWS],
        cpus=chunk.cpu.tolist(),
        spaces=trace.spaces.tolist(),
        events=trace.events,
    )
    assert oracle["stlb_miss_positions"] == missed
