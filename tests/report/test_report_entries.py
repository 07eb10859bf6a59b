"""Why L1 DTLB misses rise where larger leaves save walks: fewer entries, by the machine's own figures."""

import pytest

import fakes
from outline import Outline
from pagewalk.report.entries import first_level
from pagewalk.report.pages.result import Named, page
from pagewalk.report.tables import text
from pagewalk.study.compare import comparisons

SKYLAKE = "32 entries for 2M leaves, 64 for 4K"
"""Intel's optimization manual, tables of Skylake's TLBs: DTLB 4K 64 entries, 2M/4M 32."""


def result(machine, walks_before, walks_after, mapping="pmd"):
    """Of made-up replays: `fakes.replay` counts four L1 misses a walk."""
    replays = [
        fakes.replay("base", machine, walks=walks_before),
        fakes.replay(mapping, machine, walks=walks_after),
    ]
    return fakes.result(*replays)


@pytest.mark.parametrize(
    ("machine", "before", "after", "said"),
    [
        ("intel-skylake-sp", 1000, 2000, SKYLAKE),
        ("intel-skylake-sp", 2000, 1000, ""),
        ("intel-skylake-sp", 1000, 1000, ""),
        ("textbook-setassoc", 1000, 2000, ""),  # one L1 of 64 entries for all leaf sizes
        ("amd-zen3-milan", 1000, 2000, ""),  # likewise
        ("a-file-of-my-own.toml", 1000, 2000, ""),
    ],
)
def test_what_is_said_follows_from_the_machine(machine, before, after, said):
    (pair,) = comparisons(result(machine, before, after))
    assert first_level(pair) == said
    assert first_level(pair, "0" * 64) == ""  # described otherwise today


def test_it_stands_in_the_terminal_and_on_the_page():
    risen, fallen = (result("intel-skylake-sp", *walks) for walks in ((1000, 2000), (2000, 1000)))
    note = f"L1 DTLB misses rise on intel-skylake-sp: its first level has {SKYLAKE}"
    assert note in " ".join(text(risen, 200).split())
    assert SKYLAKE in Outline(page([Named("risen", risen)])).words
    assert SKYLAKE not in text(fallen, 200)
    assert SKYLAKE not in Outline(page([Named("fallen", fallen)])).words
