"""Write what the package says of how near its processors come to measurements, from all its cases.

    python tools/outcomes.py [VALIDATION.json]

Takes some minutes, unless the JSON of a `pagewalk validate` of today is given.
"""

import sys
from pathlib import Path

import msgspec

from pagewalk.hardware.load import load
from pagewalk.hardware.machine import Machine
from pagewalk.study.validation import standing
from pagewalk.study.validation.case import Case
from pagewalk.study.validation.read import packaged, read
from pagewalk.study.validation.validate import Validation, validate

TARGET = Path(__file__).parent.parent / "model" / "pagewalk" / "study" / "validation" / "outcomes.json"


def main() -> None:
    cases = [read(name) for name in packaged()]
    if len(sys.argv) > 1:
        found = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Validation)
    else:
        found = validate(cases)
    TARGET.write_bytes(standing.encode(standing.outcomes(found, presets(cases))))


def presets(cases: list[Case]) -> dict[str, Machine]:
    """Case -> the preset that its own machine extends."""
    own = {case.name: case.machine for case in cases if isinstance(case.machine, dict)}
    return {name: load(str(machine["extends"])) for name, machine in own.items() if "extends" in machine}


if __name__ == "__main__":
    main()
