"""One replay by two threads counts what one thread counts; what is handed on is done in order."""

import json
import threading

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagewalk.cli import pagewalk
from pagewalk.hardware.load import load
from pagewalk.replay.engine import replay
from pagewalk.replay.paths.line import AHEAD, Line
from pagewalk.study.replays import Subject, replays
from pagewalk.trace.trace import from_pages
from strategies import VMALLOC, machines, mappings, textbook_setassoc, traces

REPEATABLE = settings(derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def bytes_of(found):
    return msgspec.json.encode(msgspec.structs.replace(found, seconds={}))


@settings(REPEATABLE, max_examples=25)
@given(st.data())
def test_any_machine_by_two_threads(data):
    """Any policy, guests, several CPUs, events between chunks, accesses that share the data caches."""
    cpus = data.draw(st.integers(1, 3))
    mapped, spaces = data.draw(mappings(with_spaces=data.draw(st.booleans())))
    trace = data.draw(traces(mapped, spaces, cpus=cpus, with_events=data.draw(st.booleans())))
    hardware = data.draw(machines(cpus=cpus))
    mode = data.draw(st.sampled_from(["walks-only", "full"]))
    chunk = data.draw(st.sampled_from([1, 7, 1 << 20]))
    one = bytes_of(replay(trace, mapped, hardware, cache_mode=mode))
    for threads in (2, 3):
        assert bytes_of(replay(trace, mapped, hardware, cache_mode=mode, chunk=chunk, threads=threads)) == one


def test_positions_of_misses_by_two_threads():
    page = np.random.default_rng(2).integers(0, 3000, 40_000).astype(np.uint32)
    trace = from_pages("random", VMALLOC + np.arange(3000, dtype=np.uint64), page)
    mapped = Subject(trace, None, 0.0).mapped("base", textbook_setassoc())
    found = []
    for threads in (1, 2):
        at = []

        def keep(l1, stlb, at=at):
            at.append((l1.tolist(), stlb.tolist()))

        replay(trace, mapped, textbook_setassoc(), chunk=999, threads=threads, on_misses=keep)
        found.append([[one for some in level for one in some] for level in zip(*at, strict=True)])
    assert found[0] == found[1]
    assert found[0][1][:3] == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_what_is_handed_on_is_done_in_order(threads):
    done, most = [], 0
    with Line(threads) as line:
        for number in range(50):
            line.hand(lambda number=number: done.append((number, threading.get_ident())))
            most = max(most, number + 1 - len(done))
        line.wait()
    assert [number for number, _ in done] == list(range(50))
    assert most <= AHEAD
    assert {thread for _, thread in done} != {threading.get_ident()} or threads == 1
    assert len({thread for _, thread in done}) == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_what_goes_wrong_behind_is_raised_in_front(threads):
    def wrong():
        raise ValueError("behind")

    done = []
    with pytest.raises(ValueError, match="behind"), Line(threads) as line:
        line.hand(wrong)
        line.wait()
        done.append(1)
    assert not done


@pytest.mark.parametrize(
    ("threads", "cells", "lines"), [(1, 1, [False]), (2, 1, [True]), (3, 2, [False] * 2)]
)
def test_threads_that_are_left_over_go_to_single_replays(threads, cells, lines, monkeypatch):
    made = []

    class Watched(Line):
        def __init__(self, threads=1):
            super().__init__(threads)
            made.append(self.apart)

    monkeypatch.setattr("pagewalk.replay.engine.Line", Watched)
    trace = from_pages("few", VMALLOC + np.arange(9, dtype=np.uint64), np.arange(9, dtype=np.uint32))
    replays(Subject(trace, None, 0.0), [load("textbook-setassoc")], ["base", "pmd"][:cells], threads=threads)
    assert made == lines


def test_the_command_gives_the_same_with_any_number(tmp_path):
    address = np.random.default_rng(1).integers(0, 1 << 24, 30_000).astype(np.uint64)
    np.save(tmp_path / "few.npy", address + np.uint64(0xFFFFC90000000000))
    asked = [
        "replay",
        str(tmp_path / "few.npy"),
        "-m",
        "textbook-setassoc",
        "--mapping",
        "base",
        "--json",
        "-",
    ]
    found = []
    for threads in ("1", "2", "3"):
        output = CliRunner().invoke(pagewalk, [*asked, "--threads", threads]).stdout
        (one,) = json.loads(output)["replays"]
        found.append(one | {"seconds": 0})
    assert found[0] == found[1] == found[2]
    assert found[0]["counts"]["stlb_misses"] > 4096
    refused = CliRunner().invoke(pagewalk, [*asked, "--threads", "0"])
    assert refused.exit_code == 2
    assert "--threads" in refused.output
