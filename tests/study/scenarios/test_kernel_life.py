"""The life of modelled kernels as a table and a figure."""

import io

import msgspec
import pytest
from rich.console import Console

from pagewalk.replay.result import KernelLife, Provenance, Replay, Result, TraceFacts
from pagewalk.report.studies.kernel_life import along_events, message, save_life, show_life

COUNTS = (
    *("split", "merge", "flush-all", "flush-range", "failure", "attribute_calls", "purges"),
    *("huge_fallbacks", "left_read_only", "left_absent", "table_pages_taken"),
)


def life(name, small=(2048, 2048), **counts):
    return KernelLife(
        name=name,
        release="6.12",
        arch="x86-64",
        events=["start", "vfree a"],
        accesses=[0, 10],
        direct_map_kb={"DirectMap4k": list(small), "DirectMap2M": [8192, 8192 - small[1] + small[0]]},
        counts={key: [0, counts.get(key.replace("-", "_"), 0)] for key in COUNTS},
        memory={"areas": [0, 0], "rounding_waste": [0, 0], "page_tables": [0, 0]},
        failures={"reset: no page for a table": counts["failure"]} if "failure" in counts else {},
    )


def result(*lives):
    cells = [
        Replay(
            machine="m",
            mapping=each.name,
            counts={"accesses": 10},
            cycles={"flush": 100 * each.counts["flush-all"][-1]},
            memory={},
        )
        for each in lives
    ]
    facts = TraceFacts(name="t", accesses=10, distinct_base_pages=1)
    return Result(trace=facts, replays=cells, provenance=Provenance(pagewalk="0"), kernels=list(lives))


def shown(found, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_life(found, console)
    return console.file.getvalue()


WORST = life("7.3", (2048, 4096), split=2, flush_all=3, failure=1024, left_read_only=512, left_absent=1)
BEST = life("range", split=1, flush_all=2)


def test_the_table_has_each_kernel_and_only_columns_with_something_in_them():
    rows = [line.split() for line in shown(result(WORST, BEST)).splitlines() if line.strip()]
    assert ["7.3", "+2", "MiB", "2", "3", "1,024", "513", "300"] in rows
    assert ["range", "same", "1", "2", "0", "0", "200"] in rows
    assert not any("merged" in row for row in rows)
    assert "- 7.3: reset: no page for a table, 1,024 times" in shown(result(WORST, BEST))


def test_kernels_that_fail_alike_share_a_line():
    text = shown(result(WORST, msgspec.structs.replace(WORST, name="v8"), BEST))
    assert "- 7.3, v8: reset: no page for a table, 1,024 times" in text


def test_the_message_stands_above_the_table():
    text = " ".join(shown(result(WORST, BEST)).split())
    assert text.startswith(f"{message((WORST, BEST))}. ")


def test_no_figure_is_cut_on_a_narrow_terminal():
    everything = {key.replace("-", "_"): 99_999 for key in COUNTS}
    text = shown(result(life("a kernel", (0, 1 << 20), **everything)), 50)
    assert "…" not in text
    assert text.count("99,999") == 3 + 7 + 1, "the message, seven columns, and the failure below"
    assert "199,998" in text, "frames freed read-only and absent"


def test_nothing_is_said_or_drawn_where_nothing_happened(tmp_path):
    quiet = result(life("base"), life("huge"))
    assert shown(quiet) == ""
    assert save_life(quiet, tmp_path) == []
    assert shown(msgspec.structs.replace(quiet, kernels=[])) == ""


@pytest.mark.parametrize(
    ("lives", "said"),
    [
        (
            (WORST, BEST),
            "7.3 frees 513 frames with a wrong direct map, range none; 7.3 splits 2 leaves, range 1; "
            "7.3 flushes the whole TLB 3 times, range 2",
        ),
        (
            (WORST, msgspec.structs.replace(WORST, name="v8"), BEST, msgspec.structs.replace(BEST, name="b")),
            "7.3 and v8 free 513 frames with a wrong direct map, range and b none; "
            "7.3 and v8 split 2 leaves, range and b 1; 7.3 and v8 flush the whole TLB 3 times, range and b 2",
        ),
        (
            (BEST, msgspec.structs.replace(BEST, name="b")),
            "every kernel splits 1 leaf; every kernel flushes the whole TLB 2 times",
        ),
        ((life("a", flush_all=1),), "a flushes the whole TLB once"),
        (
            (life("fresh"), life("aged", huge_fallbacks=10), life("old", huge_fallbacks=11)),
            "old falls back to base pages 11 times, fresh none",
        ),
        ((life("a"),), "no leaf is split, and the whole TLB is never flushed"),
    ],
)
def test_the_title_says_what_stands_out(lives, said):
    assert message(lives) == said


def test_lines_of_one_course_share_a_name():
    figure = along_events(result(WORST, msgspec.structs.replace(WORST, name="v8"), BEST))
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts == [["range", "7.3, v8"]] * 3
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2]


def test_only_what_moves_is_drawn_in_whole_numbers():
    figure = along_events(result(life("a", flush_all=1), life("b")))
    (axes,) = figure.axes
    assert axes.get_ylabel().startswith("full flushes")
    assert all(tick == int(tick) for tick in axes.get_yticks())
    assert len(along_events(result(life("a"))).axes) == 1


def test_the_same_result_gives_the_same_bytes(tmp_path):
    first = [path.read_bytes() for path in save_life(result(WORST, BEST), tmp_path)]
    assert [path.read_bytes() for path in save_life(result(WORST, BEST), tmp_path)] == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["life.png", "life.svg"]
