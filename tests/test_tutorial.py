"""The tutorial runs as it stands, and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from places import REPOSITORY

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"


def blocks():
    """Each Python block, with the text block that follows it (None: it prints nothing)."""
    found = re.findall(r"^```(python|text)\n(.*?)^```$", TUTORIAL.read_text(), re.DOTALL | re.MULTILINE)
    for place, (kind, content) in enumerate(found):
        if kind == "python":
            after = found[place + 1] if place + 1 < len(found) else ("", "")
            yield content, after[1] if after[0] == "text" else ""


def test_the_tutorial_runs(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    if not Path("/proc/meminfo").exists():
        pytest.skip("its last part is about a Linux machine")
    monkeypatch.chdir(tmp_path)
    names = {}
    assert len(list(blocks())) >= 8
    for number, (code, said) in enumerate(blocks(), 1):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"tutorial, block {number}", "exec"), names)
        assert out.getvalue() == said, f"block {number}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["callers.svg", "gitdiff.html", "gitdiff.json"]
