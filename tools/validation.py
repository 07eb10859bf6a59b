"""Make anew what is kept of the predictions of all packaged cases: docs/validation.md, and what reports say.

    python tools/validation.py [VALIDATION.json]    about a minute of CPU time
    python tools/validation.py --check              write nothing; fail where either says another thing

What reports say is read by `pagewalk.study.validation.standing`. VALIDATION.json is what ``pagewalk validate
--json`` wrote today. The table stands between ``<!-- cases -->`` and ``<!-- end -->``.
"""

import difflib
import re
import sys
from pathlib import Path

import msgspec

from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Machine
from pagewalk.report.studies.validation import curves, errors, summary
from pagewalk.report.style import drawing
from pagewalk.study.validation import standing
from pagewalk.study.validation.read import packaged, read
from pagewalk.study.validation.validate import Outcome, Validation, validate

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "validation.md"
OUTCOMES = ROOT / "model" / "pagewalk" / "study" / "validation" / "outcomes.json"
DRAWN = ("zen3-guest-4k", "emerald-rapids-guest-4k-4k")


def main(*arguments: str) -> None:
    if arguments and arguments != ("--check",):
        found = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=Validation)
    else:
        found = validate([read(name) for name in packaged()])
    shown = PAGE.read_text()
    said = with_table(shown, table(found))
    kept = standing.encode(standing.outcomes(found, presets()))
    if arguments == ("--check",):
        if kept != OUTCOMES.read_bytes():
            sys.exit(f"{OUTCOMES.name} is not what is predicted today: python tools/validation.py")
        if said != shown:
            lines = difflib.unified_diff(
                shown.splitlines(), said.splitlines(), "shown", "predicted", "", "", 0
            )
            sys.exit("\n".join(lines))
        return
    PAGE.write_text(said)
    OUTCOMES.write_bytes(kept)
    with drawing():
        errors(found).savefig(PAGE.parent / "images" / "validation.png")
        for case in found.cases:
            if case.name in DRAWN and (figure := curves(case)):
                figure.savefig(PAGE.parent / "images" / f"validation-{case.name}.png")


def presets() -> dict[str, Machine]:
    """Case -> the preset that its own machine extends."""
    own = {name: case.machine for name in packaged() if isinstance((case := read(name)).machine, dict)}
    return {name: load(str(machine["extends"])) for name, machine in own.items() if "extends" in machine}


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
