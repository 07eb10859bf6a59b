import io
import re
import subprocess
import sys

import msgspec
import pytest
from rich.console import Console

import fakes
from pagewalk.report import tables, words
from pagewalk.study.compare import comparisons

RESULTS = [
    fakes.saving, fakes.worse, fakes.same, fakes.idle, fakes.single, fakes.many_regions, fakes.huge,
    fakes.several_machines, fakes.three_mappings,
]  # fmt: skip


def verdict(result):
    return words.verdict(comparisons(result)[0])


def test_the_answer_is_a_saving():
    before, after = fakes.replay("base", walks=10_000, cycles=400_000), fakes.replay("pmd", cycles=100_000)
    assert verdict(fakes.result(before, after)) == (
        "PMD leaves save 75.0 % of the walk cycles on textbook-setassoc "
        "(200.0 to 50.0 per 1000 accesses), for the same memory."
    )


def test_the_answer_is_a_loss():
    before, after = fakes.replay("base", cycles=100_000), fakes.replay("pmd", cycles=125_000, waste=3 << 20)
    assert verdict(fakes.result(before, after)) == (
        "PMD leaves cost 25.0 % more walk cycles on textbook-setassoc "
        "(50.0 to 62.5 per 1000 accesses), for 3 MiB more memory."
    )


def test_the_answer_says_what_becomes_of_all_waiting_where_stlb_hits_count_too():
    def made(mapping, walk, exposed):
        return msgspec.structs.replace(
            fakes.replay(mapping), cycles={"walk": walk, "stlb_hit": 100, "exposed": exposed}
        )

    assert "and save 10.0 % of the cycles that the program waits, for" in verdict(
        fakes.result(made("base", 900, 1000), made("pmd", 100, 900))
    )
    assert "and cost 50.0 % more cycles that the program waits, for" in verdict(
        fakes.result(made("base", 900, 1000), made("pmd", 100, 1500))
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (1000, 1000, "PMD leaves do not change the walk cycles on"),
        (1000, 0, "PMD leaves save all of the walk cycles on"),
        (0, 1000, "PMD leaves bring walk cycles where there were none on"),
        (1000, 3000, "PMD leaves cost 3.0 times the walk cycles on"),
        (100_000, 99_999, "PMD leaves save less than 0.1 % of the walk cycles on"),
        (10**9, 1, "PMD leaves save 99.99 % of the walk cycles on"),
    ],
)
def test_the_answer_whichever_way_it_goes(before, after, said):
    result = fakes.result(fakes.replay("base", cycles=before), fakes.replay("pmd", cycles=after))
    assert verdict(result).startswith(said)


def test_walks_answer_where_no_walk_costs_a_cycle():
    result = fakes.result(
        fakes.replay("base", walks=40_000, cycles=0), fakes.replay("pmd", walks=10_000, cycles=0)
    )
    assert "save 75.0 % of the page walks" in verdict(result)


def test_nothing_to_save():
    assert verdict(fakes.idle()).startswith("Nothing to save on textbook-setassoc")


def test_several_machines_are_ranked_by_what_they_save():
    result = fakes.result(
        *(fakes.replay("base", name, cycles=1000) for name in "abc"),
        *(fakes.replay("pmd", name, cycles=n) for name, n in (("a", 500), ("b", 1100), ("c", 100))),
    )
    assert words.verdict_of_all(comparisons(result)) == (
        "PMD leaves save 90.0 % of the walk cycles on c; they cost 10.0 % more walk cycles on b"
    )


def test_several_machines_where_nothing_changes():
    result = fakes.result(*(fakes.replay(m, cpu) for cpu in "ab" for m in ("base", "pmd")))
    assert words.verdict_of_all(comparisons(result)) == "PMD leaves change nothing on 2 machines"


def test_several_machines_that_all_gain_are_one_range():
    result = fakes.result(
        *(fakes.replay("base", name, cycles=1000) for name in "abc"),
        *(fakes.replay("pmd", name, cycles=n) for name, n in (("a", 500), ("b", 900), ("c", 100))),
    )
    assert words.verdict_of_all(comparisons(result)) == (
        "PMD leaves save 10.0 % (b) to 90.0 % (c) of the walk cycles on 3 machines"
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0, "0 B"), (999, "999 B"),
        (1000, "0.98 KiB"),
        (1023, "1.00 KiB"), (1024, "1 KiB"), (1 << 20, "1 MiB"), (7 << 18, "1.75 MiB"),
        (428 << 10, "428 KiB"), (3 << 30, "3 GiB"), (1 << 60, "1,048,576 TiB"), (-(1 << 20), "-1 MiB"),
    ],
)  # fmt: skip
def test_sizes(value, said):
    assert words.size(value) == said


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (412, 70, "-83.0 %"), (70, 412, "+488.6 %"), (1, 10, "x 10"), (5, 5, "same"), (0, 0, "same"),
        (0, 5, "from 0"), (5, 0, "-100.0 %"), (10**6, 1, "-99.99 %"), (10**6, 10**6 - 1, "-<0.1 %"),
    ],
)  # fmt: skip
def test_relative_changes(before, after, said):
    assert words.relative(before, after) == said


def test_small_numbers_never_look_like_nothing():
    assert words.number(0.0004, 2) == "<0.01"
    assert words.number(0, 2) == "0.00"
    assert words.shares([0, 1, 10_000]) == ["-", "<1 %", "100 %"]


def test_counts_keep_three_digits():
    said = [words.millions(n) for n in (0, 999, 1000, 999_499, 999_700, 64_249_999, 1_500_000_000, 10**15)]
    assert said == ["0", "999", "1.00 k", "999 k", "1.00 M", "64.2 M", "1.50 G", "1000 T"]


@pytest.mark.parametrize("make", RESULTS)
@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_the_terminal_and_no_figure_is_cut(make, width):
    shown = tables.text(make(), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown


@pytest.mark.parametrize("make", RESULTS)
def test_a_narrow_terminal_wraps_names_and_cuts_no_figure(make):
    wide, narrow = tables.text(make(), 120), tables.text(make(), 40)
    assert "…" not in narrow
    changes = re.findall(r"[-+][\d.]+ %", tables.text(make(), 80))
    assert re.findall(r"[-+][\d.]+ %", narrow) == changes
    assert re.findall(r"[-+][\d.]+ %", wide) == changes


def test_a_machine_with_one_mapping_beside_one_with_two_has_no_change():
    result = fakes.result(
        fakes.replay("base", "a"), fakes.replay("pmd", "a", walks=9000), fakes.replay("recorded", "b")
    )
    rows = [line.split() for line in tables.text(result).splitlines()]
    assert ["a", "720", "162", "-77.5", "%"] in rows
    assert ["b", "720"] in rows


def test_columns_are_right_aligned():
    lines = tables.text(fakes.saving()).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("textbook-setassoc, per"))
    rows = lines[start : start + 8]
    assert len({len(row) for row in rows if "─" not in row}) == 1


def test_others_are_added_up_so_that_no_caller_is_dropped():
    shown = tables.text(fakes.many_regions())
    assert f"{40 - tables.CALLERS} others" in shown


def test_a_single_mapping_shows_no_change():
    shown = tables.text(fakes.single())
    assert "change" not in shown
    assert "page walks" in shown


def test_assumptions_are_said_once():
    result = fakes.result(
        fakes.replay("base", notes=["as assumed"]), fakes.replay("pmd", notes=["as assumed"])
    )
    assert tables.text(result).count("as assumed") == 1


def test_no_colour_where_the_user_wants_none(monkeypatch):
    def show():
        out = io.StringIO()
        tables.show(fakes.saving(), Console(file=out, width=80, force_terminal=True))
        return out.getvalue()

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = re.compile(r"\x1b\[[\d;]*3[0-7]m")
    assert coloured.search(show())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured.search(show())


def test_names_from_a_trace_are_not_markup():
    shown = tables.text(
        fakes.result(fakes.replay("base", "[red]x[/]"), fakes.replay("pmd", "[red]x[/]"), name="[b]")
    )
    assert "[red]x[/]" in shown
    assert "[b]," in shown


def test_a_table_loads_neither_numba_nor_matplotlib():
    check = (
        "import sys; from pagewalk.report import tables; "
        "sys.exit(bool({'numba', 'matplotlib', 'rich'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_of_three_mappings_the_change_says_from_which_to_which():
    three = fakes.result(*(fakes.replay(mapping) for mapping in ("base", "pmd", "recorded")))
    two = fakes.result(fakes.replay("base"), fakes.replay("pmd"))
    assert "base to pmd" in tables.text(three)
    assert "base to pmd" not in tables.text(two)
