"""docs/validation.md says what is predicted: quick cases here, all in CI (tools/validation.py --check)."""

import importlib.util

import pytest

from pagewalk.study.validation.case import Unpredicted
from pagewalk.study.validation.read import packaged, read
from pagewalk.study.validation.validate import Known, outcome
from places import REPOSITORY

DEAR = (
    "gups-",
    "zen3-guest-large",
    "emerald-rapids-guest-4k-4k",
    "emerald-rapids-guest-2m-4k",
    "power9-git-diff",
)
"""More than a second each."""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("validation_tool", REPOSITORY / "tools" / "validation.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def shown():
    """The table's line for each case."""
    lines = (REPOSITORY / "docs" / "validation.md").read_text().splitlines()
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


def test_every_case_has_a_line(tool, shown):
    assert shown.keys() == packaged().keys()
    for name, line in shown.items():
        case = read(name)
        assert f"| {case.title} |" in line
        if isinstance(case.pattern, Unpredicted):
            assert case.pattern.why in line
        elif case.sets:
            assert f"| set {', '.join(case.sets)} |" in line
        else:
            assert line.endswith(("| **inside** |", "| **outside** |"))


@pytest.mark.parametrize("name", [name for name in packaged() if not name.startswith(DEAR)])
def test_the_page_says_what_is_predicted(tool, shown, name):
    assert tool.row_of(outcome(read(name), KNOWN)) == shown[name]


KNOWN = Known()


def test_another_table_would_be_noticed(tool):
    page = "a\n<!-- cases -->\nold\n<!-- end -->\nb"
    assert tool.with_table(page, "new | \\1") == "a\n<!-- cases -->\nnew | \\1\n<!-- end -->\nb"
