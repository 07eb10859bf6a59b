"""The figures that README and docs show are those that the model gives now."""

import importlib.util
import re
from pathlib import Path

from pagewalk.report.tables import text

ROOT = Path(__file__).parent.parent


def test_the_tables_shown_are_those_of_the_model(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")
    spec = importlib.util.spec_from_file_location("figures_tool", ROOT / "tools" / "figures.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = tool.of_scenario()
    tables = {"run": text(found), "answer": tool.answer(found)}
    for page in (ROOT / "README.md", ROOT / "docs" / "results.md"):
        shown = page.read_text()
        assert tool.with_tables(shown, tables) == shown, f"{page.name} is out of date; run tools/figures.py"
        assert any(table in shown for table in tables.values())
        assert "<!-- table" in shown


def test_every_picture_and_page_that_is_linked_exists():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links {target}"
