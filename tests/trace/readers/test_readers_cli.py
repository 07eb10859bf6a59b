"""trace formats, --format, conversion of foreign files, and readers that other distributions add."""

import io
import json

import pytest
from click.testing import CliRunner
from rich.console import Console

import foreign
from foreign import Access
from pagewalk.cli import main
from pagewalk.cli.trace.commands import trace
from pagewalk.report.trace.terminal import show_formats
from pagewalk.trace.open import open_trace
from pagewalk.trace.readers import READERS
from places import REPOSITORY

DOCS = REPOSITORY / "docs" / "formats.md"
SOME = [
    Access("fetch", 0x401000, 4),
    Access("load", 0x7FFE_0000_1000),
    Access("store", 0xFFFF_C900_0000_0FF8),
]


def run(monkeypatch, capsys, *words):
    """(exit status, standard error) of the command line."""
    monkeypatch.setattr("sys.argv", ["pagewalk", "trace", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return end.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


def test_formats_lists_every_reader_and_so_do_the_docs():
    shown = CliRunner().invoke(trace, ["formats"])
    assert shown.exit_code == 0
    lines = {line.split()[0]: line for line in shown.output.splitlines() if line[:1].isalpha()}
    table = {row.split("`")[1]: row for row in DOCS.read_text().splitlines() if row.startswith("| `")}
    for reader in READERS:
        told = len(reader.carries - {"time"})
        assert lines[reader.name].count("\u2022") == len(reader.carries)
        assert table[reader.name].count("✓") == told


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_formats_tells_all_at_every_width(columns):
    console = Console(file=io.StringIO(), width=columns)
    show_formats(list(READERS), console)
    said = console.file.getvalue()
    told = "".join(said.split())
    assert "\u2026" not in said and max(map(len, said.splitlines())) <= columns
    assert all(word in told for reader in READERS for word in reader.about.split())


def test_converting_a_foreign_file_keeps_its_accesses(tmp_path, monkeypatch, capsys):
    path = tmp_path / "some.lackey"
    path.write_bytes(foreign.lackey(SOME * 50))
    assert run(monkeypatch, capsys, "convert", path, tmp_path / "out")[0] == 0
    assert run(monkeypatch, capsys, "convert", path, tmp_path / "cut", "--records", "3:9")[0] == 0
    facts = {}
    for each in (path, tmp_path / "out", tmp_path / "cut"):
        assert run(monkeypatch, capsys, "info", each, "--json", tmp_path / "info.json")[0] == 0
        facts[each.name] = json.loads((tmp_path / "info.json").read_text())
    names = ("records", "loads", "stores", "distinct_base_pages", "mean_run", "ranges")
    assert [facts["some.lackey"][name] for name in names] == [facts["out"][name] for name in names]
    assert (facts["out"]["records"], facts["cut"]["records"]) == (150, 6)
    assert (facts["cut"]["loads"], facts["cut"]["stores"]) == (2, 2)


def test_format_overrules_the_content(tmp_path, monkeypatch, capsys):
    path = tmp_path / "numbers"
    path.write_bytes(b"4096\n8192\n")
    assert run(monkeypatch, capsys, "info", path)[0] == 0
    assert run(monkeypatch, capsys, "info", path, "--format", "csv")[0] == 0
    code, said = run(monkeypatch, capsys, "convert", path, tmp_path / "out", "--format", "lackey")
    assert code == 2
    assert said.splitlines()[-1].startswith(
        f"pagewalk: {path}: line 1: '4096' is no access; record with valgrind"
    )
    assert not (tmp_path / "out").exists()
    code, said = run(monkeypatch, capsys, "info", path, "--format", "elf")
    assert code == 2
    assert "no format 'elf'; there are: npy, parquet" in said


PLUG_IN = """
import numpy as np
from pagewalk.trace.encode import RawChunk
from pagewalk.trace.readers import Reader, packed


def read(path):
    def chunks(size):
        for block in packed.blocks(path):
            yield RawChunk(np.frombuffer(block[4:], np.uint64))

    return packed.raw(path, chunks)


READER = Reader("mine", lambda path, head: head.startswith(b"MINE"), read, frozenset(), "my tool")
BROKEN = 5
"""


def install(tmp_path, monkeypatch, target):
    (tmp_path / "my_plug_in.py").write_text(PLUG_IN)
    about = tmp_path / "my_plug_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plug-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[pagewalk.trace_readers]\nmine = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_plug_in_adds_a_reader(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "my_plug_in:READER")
    path = tmp_path / "trace.mine"
    path.write_bytes(b"MINE" + (0xFFFF_C900_0000_0008).to_bytes(8, "little"))
    assert open_trace(path).pages.tolist() == [0xFFFF_C900_0000_0]
    assert "my tool" in CliRunner().invoke(trace, ["formats"]).output


def test_a_plug_in_is_asked_before_readers_that_go_by_likelihood(tmp_path, monkeypatch):
    """The words of this file look like a capture without a header."""
    path = tmp_path / "trace.mine"
    path.write_bytes(
        b"MINE" + b"".join((0xFFFF_C900_0000_0000 + 4096 * n).to_bytes(8, "little") for n in range(16))
    )
    assert next(reader for reader in READERS if reader.recognises(path, path.read_bytes())).name != "mine"
    install(tmp_path, monkeypatch, "my_plug_in:READER")
    assert open_trace(path).accesses == 16


@pytest.mark.parametrize(
    ("target", "told"), [("my_plug_in:BROKEN", "is no pagewalk"), ("no_such_module:X", "cannot be loaded")]
)
def test_a_broken_plug_in_is_named(tmp_path, monkeypatch, capsys, target, told):
    install(tmp_path, monkeypatch, target)
    (tmp_path / "x").write_bytes(b"MINE")
    code, said = run(monkeypatch, capsys, "info", tmp_path / "x")
    assert code == 2
    assert "pagewalk.trace_readers: mine: " + told in said
