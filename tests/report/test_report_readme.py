"""The figures that README and docs show are those that the model gives now."""

import importlib.util
import re

from pagewalk.report.tables import text
from places import REPOSITORY


def test_the_tables_shown_are_those_of_the_model(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    spec = importlib.util.spec_from_file_location("figures_tool", REPOSITORY / "tools" / "figures.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    found = tool.of_scenario()
    tables = {"run": text(found), "answer": tool.answer(found)}
    for page in (REPOSITORY / "README.md", REPOSITORY / "docs" / "results.md"):
        shown = page.read_text()
        assert tool.with_tables(shown, tables) == shown, f"{page.name} is out of date; run tools/figures.py"
        assert any(table in shown for table in tables.values())
        assert "<!-- table" in shown


def test_every_picture_and_page_that_is_linked_exists():
    for page in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))):
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links {target}"
