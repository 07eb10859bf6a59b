"""What a newcomer types first, at every width: help, slips, lists."""

import io
import json
import shlex
import subprocess
import sys

import click
import pytest
from rich.console import Console

from pagewalk.cli import COMMANDS, listing, pagewalk
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
        (["nonsense"], "pagewalk: nonsense: no such command; see pagewalk --help"),
        (["repaly"], "pagewalk: repaly: no such command; did you mean replay?"),
        (["machines", "zen4"], "pagewalk: zen4: no preset of that name; did you mean amd-zen4-genoa?"),
        (["run", "module"], "pagewalk: module: No such file or directory; did you mean modules?"),
        (
            ["validate", "knees-zen4"],
            "pagewalk: knees-zen4: No such file or directory; did you mean knees-zen5?",
        ),
        (["report", "x.json", "--out", "x.pdf"], "pagewalk: x.pdf: is no .html or .htm file; name it so"),
        (["replay"], "pagewalk: Missing argument 'TRACE'; see pagewalk replay --help"),
        (["trace"], "pagewalk: Missing command; see pagewalk trace --help"),
        (["trace", "convert"], "pagewalk: Missing argument 'IN'; see pagewalk trace convert --help"),
    ],
)
def test_a_slip_is_one_line_that_says_whose_help_to_read(words, said):
    assert run(*words) == (2, "", f"{said}\n")


def leaves(command, *words):
    """All commands below one, with what is typed to reach them."""
    if not isinstance(command, click.Group):
        yield words, command
        return
    for name in command.list_commands(click.Context(command)):
        yield from leaves(command.get_command(click.Context(command), name), *words, name)


def test_every_example_of_the_help_can_be_typed():
    """Its command is there and takes such options; nothing is run."""
    shown = 0
    for words, command in leaves(pagewalk):
        text = command.get_help(click.Context(command, info_name=" ".join(words)))
        for line in filter(str.strip, text.partition("Examples:")[2].splitlines()):
            program, *typed = shlex.split(line.strip().rpartition("| ")[2].removeprefix("sudo .venv/bin/"))
            assert program == "pagewalk"
            asked: click.Command | None = pagewalk
            while isinstance(asked, click.Group):
                asked = asked.get_command(click.Context(asked), typed.pop(0))
            assert asked is not None
            asked.make_context("", typed)
            shown += 1
    assert shown >= len(COMMANDS)


def test_no_line_of_the_lists_of_commands_is_cut():
    for group in ((), ("trace",), ("trace", "synth")):
        assert "..." not in run(*group, "--help")[1].partition("Options:")[2]


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


def test_a_result_without_a_replay_is_refused(tmp_path):
    file = tmp_path / "none.json"
    trace = {"name": "nothing", "accesses": 0, "distinct_base_pages": 0}
    result = {"schema": "pagewalk.result/1", "trace": trace, "replays": [], "provenance": {"pagewalk": "0"}}
    file.write_text(json.dumps(result))
    said = f"pagewalk: {file}: has no replay in it; run pagewalk again with --json\n"
    assert run("report", str(file), "--out", str(tmp_path / "page.html")) == (2, "", said)
    assert list(tmp_path.iterdir()) == [file]


def test_a_sweep_that_names_an_array_no_machine_has_is_refused(tmp_path):
    grid = tmp_path / "grid.toml"
    grid.write_text(
        'schema = "pagewalk.sweep/1"\ntraces = ["synth:uniform?accesses=10"]\n'
        'machines = ["textbook-setassoc"]\n[vary]\n"tlb.STL.entries" = [512, 1024]\n'
    )
    code, _, said = run("sweep", str(grid), "--out", str(tmp_path / "out"))
    assert code == 2
    assert said.startswith(f"pagewalk: {grid}: no cell is a possible machine: ")
    assert "tlb.STL" in said
