"""docs/rules.md: what it names exists, and no rule lacks both a test and a reason."""

import ast
import re
from functools import cache

import pytest

from pagewalk.linux.rules.releases import RULES
from places import REPOSITORY

PAGE = (REPOSITORY / "docs/rules.md").read_text()
LINUX = REPOSITORY / "model/pagewalk/linux"
TABLES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("| rule |", "| figure |", "| key |", "| --- |"))
]
ROWS = [row for row in TABLES if len(row) == 4]
KEYS = [row for row in TABLES if len(row) == 2]


@cache
def functions(name: str) -> set[str]:
    (file,) = (REPOSITORY / "tests").rglob(f"test_{name}.py")
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_named_test_exists():
    named = re.findall(r"`(\w+)::(\w+)`", PAGE)
    assert len(named) > 150
    missing = {f"{file}::{test}" for file, test in named if f"test_{test}" not in functions(file)}
    assert missing == set()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_row_names_its_place_and_its_test_or_says_why_not(row):
    rule, mark, model, test = row
    assert rule
    assert mark
    if test == "–":
        assert re.match(r"(not modelled( here)?|unknown): \w+", model), "no test, and no reason"
        return
    assert "::" in test
    if re.search(r"\]\(\w+\.md\)", model):
        return
    for part in re.sub(r" \(.*\)", "", model).split(";"):
        file = re.search(r"`([\w/]+\.py)`", part)
        assert file, part
        text = (LINUX / file[1]).read_text()
        for name in re.findall(r"`([\w-]+)`", part):
            assert name in text, f"{name} is not in {file[1]}"


def test_every_rule_of_a_release_is_listed():
    """What `pagewalk kernels` shows is on the page, each with the test that fails without it."""
    assert {row[0].strip("`") for row in KEYS} == {rule.key for rule in RULES}
    assert all("::" in tests for _, tests in KEYS)
