"""Every size at once equals a replay of each size."""

import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from pagewalk.errors import BadInput
from pagewalk.hardware.load import load
from pagewalk.replay.engine import replay
from pagewalk.study.curve import Curve, curves
from pagewalk.study.replays import Subject, subject
from pagewalk.study.sampling.sets import sampled_curves
from pagewalk.trace.trace import FETCH, from_pages

TEXTBOOK = load("textbook-setassoc")


def with_tlb(level, entries, ways):
    tlb = [
        msgspec.structs.replace(array, entries=entries, ways=ways) if array.level == level else array
        for array in TEXTBOOK.tlb
    ]
    return msgspec.structs.replace(TEXTBOOK, tlb=tlb)


def curve(subject, mapping, machine):
    (found,) = curves(subject, [mapping], machine).curves
    return found


@pytest.fixture(scope="module")
def mixed():
    """Pages of both leaf sizes cannot be had without a layout, so a cut of the kernel trace, with fetches."""
    opened = subject("sample:gitdiff")
    head = next(opened.trace.chunks("flags", size=150_000))
    assert (head.flags & FETCH).any()
    cut = from_pages("cut", opened.trace.pages, head.page, flags=head.flags)
    return Subject(cut, opened.layout, 0.0)


@pytest.mark.parametrize("mapping", ["base", "pmd"])
def test_fully_associative_sizes(mixed, mapping):
    found = curve(mixed, mapping, TEXTBOOK)
    for entries in (1, 2, 3, 13, 64, 100, 400, 5000):
        machine = with_tlb(1, entries, 0)
        counted = replay(mixed.trace, mixed.mapped(mapping, machine), machine, fast=False)
        assert found.at(entries) == counted.counts["l1_dtlb_misses"], entries
    assert found.at(0) == found.accesses
    assert found.at(10**9) == found.units


@pytest.mark.parametrize("mapping", ["base", "pmd"])
def test_set_associative_sizes(mixed, mapping):
    found = curve(mixed, mapping, TEXTBOOK)
    for sets, ways in ((1, 1), (1, 32), (8, 4), (64, 7), (128, 12), (1024, 2)):
        machine = with_tlb(2, sets * ways, ways)
        counted = replay(mixed.trace, mixed.mapped(mapping, machine), machine, fast=False).counts
        assert found.l1_misses == counted["l1_dtlb_misses"]
        misses = found.second_level_misses[found.sets.index(sets)][ways - 1]
        assert misses == counted["stlb_misses"], (sets, ways)


def test_behind_the_first_level_of_a_processor():
    """An L1 that names the leaves that it holds, in the geometry of its kernel."""
    opened, machine = subject("synth:zipf?size=16M&accesses=20000"), load("arm-neoverse-n1")
    found = curve(opened, "base", machine)
    counted = replay(opened.trace, opened.mapped("base", machine), machine, fast=False).counts
    assert found.l1_misses == counted["l1_dtlb_misses"]
    assert found.leaf_bytes == 4096


@pytest.mark.parametrize("mapping", ["base", "pmd"])
def test_all_classes_are_no_sample(mixed, mapping):
    """With every class of sets the estimate is the exact count, and nothing is left open."""
    exact = curve(mixed, mapping, TEXTBOOK)
    (found,) = sampled_curves(mixed, [mapping], TEXTBOOK, 1.0).curves
    assert found.sets == exact.sets[6:]
    assert found.second_level_misses == exact.second_level_misses[6:]
    assert found.l1_misses == exact.l1_misses
    assert not np.any(found.error)


def test_errors_cover_what_was_not_sampled():
    """Over many samples, as often as two standard errors say; where the accesses are alike and where not."""
    for spec in ("uniform?size=64M&accesses=100000", "zipf?size=64M&accesses=100000"):
        opened = subject(f"synth:{spec}")
        exact = np.array(curve(opened, "base", TEXTBOOK).second_level_misses)[6:]
        covered = []
        for seed in range(30):
            (found,) = sampled_curves(opened, ["base"], TEXTBOOK, 0.125, seed).curves
            assert found.classes == 8
            covered.append(np.abs(found.second_level_misses - exact) <= found.error)
            assert np.median(np.array(found.error) / exact) < 0.4
        assert np.mean(covered) > 0.9


def test_a_class_that_no_sample_saw():
    """All misses are in one class of sets: whoever did not sample it must say how much that may hide."""
    page = 64 * np.arange(200, dtype=np.uint64)
    order = np.random.default_rng(1).integers(0, 200, 20_000).astype(np.uint32)
    opened = Subject(from_pages("one class", page, order), None, 0.0)
    exact = np.array(curve(opened, "base", TEXTBOOK).second_level_misses)[6:]
    for seed in range(10):
        (found,) = sampled_curves(opened, ["base"], TEXTBOOK, 0.1, seed).curves
        assert (np.abs(found.second_level_misses - exact) <= found.error).all()


def test_the_sample_command(tmp_path):
    command = [sys.executable, "-m", "pagewalk", "curve", "synth:zipf?size=16M&accesses=20000"]
    shown = subprocess.run([*command, "--sample", "0.25"], capture_output=True, text=True, check=True)
    assert "16 of 64 classes" in shown.stdout
    assert "±" in shown.stdout
    written = subprocess.run(
        [*command, "--sample", "0.25", "--json", "-"], capture_output=True, text=True, check=True
    )
    assert json.loads(written.stdout)["schema"] == "pagewalk.curve-sample/1"
    for more, said in ((["--sample", "0"], "no share"), (["--sample", "1", "--plot", "x.svg"], "--plot")):
        refused = subprocess.run([*command, *more], capture_output=True, text=True, cwd=tmp_path)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_a_cyclic_sweep_fits_or_does_not():
    """LRU, N pages in a cycle: all but the first round hits with N entries, nothing with fewer."""
    pages = np.arange(50, dtype=np.uint64)
    trace = from_pages("cycle", pages, np.tile(np.arange(50, dtype=np.uint32), 20))
    found = curve(Subject(trace, None, 0.0), "base", TEXTBOOK)
    assert (found.entries, found.misses) == ([50], [50])
    assert found.at(49) == 1000
    assert found.knee() == 50
    assert isinstance(found, Curve)


def test_refusals():
    with pytest.raises(BadInput, match="L1"):
        curve(subject("sample:gitdiff"), "base", load("intel-skylake-sp"))
    fetches = from_pages(
        "code", np.arange(3, dtype=np.uint64), np.zeros(5, np.uint32), flags=np.full(5, FETCH, np.uint8)
    )
    with pytest.raises(BadInput, match="no data accesses"):
        curve(Subject(fetches, None, 0.0), "base", TEXTBOOK)


def test_the_command(tmp_path):
    trace = "synth:zipf?size=16M&accesses=20000"
    command = [
        sys.executable,
        "-m",
        "pagewalk",
        "curve",
        trace,
        "--json",
        "-",
        "--plot",
        str(tmp_path / "c.svg"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["schema"] == "pagewalk.curve/1"
    assert [c["mapping"] for c in found["curves"]] == ["base", "pmd"]
    base = found["curves"][0]
    assert base["misses"] == sorted(base["misses"], reverse=True)
    assert base["misses"][-1] == base["units"]
    assert "<svg" in (tmp_path / "c.svg").read_text()
