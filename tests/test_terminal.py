"""What a newcomer types first, at every width: help, slips, lists."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from pagewalk.cli import listing
from pagewalk.hardware.figures import assumed_share
from pagewalk.hardware.load import load, names
from pagewalk.report.catalogue.machines import show_list

SHELL = [sys.executable, "-c", "from pagewalk.cli import main; main()"]


def run(*words):
    done = subprocess.run([*SHELL, *words], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_nothing_typed_is_a_question_for_help():
    assert run() == run("--help")
    assert run()[0] == 0
    assert run()[1].startswith("Usage: pagewalk [OPTIONS] [COMMAND]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "pagewalk: No such command 'nonsense'; see pagewalk --help"),
        (["replay"], "pagewalk: Missing argument 'TRACE'; see pagewalk replay --help"),
        (["trace"], "pagewalk: Missing command; see pagewalk trace --help"),
        (["trace", "convert"], "pagewalk: Missing argument 'IN'; see pagewalk trace convert --help"),
    ],
)
def test_a_slip_is_one_line_that_says_whose_help_to_read(words, said):
    assert run(*words) == (2, "", f"{said}\n")


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_list_is_as_wide_as_the_terminal(columns, capsys, monkeypatch):
    rows = [("short", "a word " * 30), ("a-much-longer-name", "one")]
    monkeypatch.setattr(listing.sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    listing.listing(rows)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= max(columns, len("a-much-longer-name  ") + listing.NARROWEST) for line in lines)
    assert [line for line in lines if not line.startswith(" ")] == [lines[0], lines[-1]]
    assert " ".join(line[20:] for line in lines[:-1]).split() == ("a word " * 30).split()


def test_a_list_in_a_pipe_has_a_line_for_each_name(capsys):
    listing.listing([("short", "a word " * 30), ("long", "b " * 100)])
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_machines_are_whole_at_every_width(columns):
    """Their names, which may go on in the next line, and how much of each is assumed."""
    machines = [load(name) for name in names()]
    console = Console(file=io.StringIO(), width=columns)
    show_list(machines, {}, console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= columns
    beside = lines[0].index("L1 DTLB")
    heads = "".join(line[:beside].strip() for line in lines)
    for machine in machines:
        assert machine.id in heads
        assert any(line.rstrip().endswith("{} of {}".format(*assumed_share(machine))) for line in lines)


def test_an_explanation_as_json_is_what_the_table_says():
    """The first access to a page: both levels miss, and a walk reads four entries at 100 cycles each."""
    words = ["explain", "synth:sequential?size=1M&accesses=100", "-n", "0", "-m", "textbook-fullassoc"]
    code, said, _ = run(*words, "--json", "-")
    found = json.loads(said)
    assert code == 0
    assert found["schema"] == "pagewalk.explanation/1"
    assert [step["outcome"] for step in found["steps"]].count("read") == 4
    assert sum(step["cycles"] for step in found["steps"]) == 400
    assert "400" in run(*words)[1].splitlines()[-1]
