"""Make the table and the pictures of docs/validation.md anew: every packaged case, predicted.

    python tools/validation.py [VALIDATION.json]    about a minute of CPU time
    python tools/validation.py --check              write nothing; fail where the page says another thing

VALIDATION.json is what ``pagewalk validate --json`` wrote today. The table stands between ``<!-- cases -->``
and ``<!-- end -->``.
"""

import difflib
import re
import sys
from pathlib import Path

import msgspec

from pagewalk.report.style import drawing
from pagewalk.report.validation import curves, errors, summary
from pagewalk.study.validation.read import packaged, read
from pagewalk.study.validation.validate import Outcome, Validation, validate

PAGE = Path(__file__).parent.parent / "docs" / "validation.md"
DRAWN = ("zen3-guest-4k", "emerald-rapids-guest-4k-4k")


def main(*arguments: str) -> None:
    if arguments and arguments != ("--check",):
        found = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Validation)
    else:
        found = validate([read(name) for name in packaged()])
    shown = PAGE.read_text()
    said = with_table(shown, table(found))
    if arguments == ("--check",):
        if said != shown:
            lines = difflib.unified_diff(
                shown.splitlines(), said.splitlines(), "shown", "predicted", "", "", 0
            )
            sys.exit("\n".join(lines))
        return
    PAGE.write_text(said)
    with drawing():
        errors(found).savefig(PAGE.parent / "images" / "validation.png")
        for case in found.cases:
            if case.name in DRAWN and (figure := curves(case)):
                figure.savefig(PAGE.parent / "images" / f"validation-{case.name}.png")


def with_table(page: str, lines: str) -> str:
    """The page with another table."""
    block = f"<!-- cases -->\n{lines}\n<!-- end -->"
    return re.sub(r"<!-- cases -->.*?<!-- end -->", lambda _: block, page, flags=re.S)


def table(found: Validation) -> str:
    """All cases as a table in Markdown, what validates first, and the sum of it."""
    order = sorted(found.cases, key=lambda c: (c.verdict == "not predicted", bool(c.sets), c.name))
    head = "| case | what | values inside | half within | worst | verdict |\n|---|---|---|---|---|---|"
    return "\n".join([head, *map(row_of, order)]) + f"\n\n{summary(found)}"


def row_of(case: Outcome) -> str:
    """A case as a line of the table."""
    if case.verdict == "not predicted":
        return f"| `{case.name}` | {case.title} | - | - | - | not predicted: {case.why} |"
    verdict = f"set {', '.join(case.sets)}" if case.sets else f"**{case.verdict}**"
    share = f"{case.inside} of {len(case.rows)}"
    error = f"{case.median_error:.1%} | {case.worst_error:.0%}"
    return f"| `{case.name}` | {case.title} | {share} | {error} | {verdict} |"


if __name__ == "__main__":
    main(*sys.argv[1:])
