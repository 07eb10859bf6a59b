"""A scenario: which trace, which machines, which mappings, as a small TOML file."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, field

from pagewalk.errors import BadInput

DEFAULT = "gitdiff"
"""What ``pagewalk run`` runs when nothing is named."""


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to replay.

    Attributes
    ----------
    schema : str
        "pagewalk.scenario/1".
    title : str
        One line for people.
    trace : str
        A trace, relative to the scenario's file; or "sample:NAME", "synth:KIND?..." as on the command line.
    machines : list of str
        Preset names, or machine files relative to the scenario's file.
    mappings : list of str
    cache_mode : {"walks-only", "full"}
    name : str
        The file's stem; set by the reader.
    """

    schema: Literal["pagewalk.scenario/1"]
    title: str
    trace: str
    machines: list[str]
    mappings: list[str] = field(default_factory=lambda: ["base", "pmd"])
    cache_mode: Literal["walks-only", "full"] = "walks-only"
    name: str = ""


def packaged() -> dict[str, Path]:
    """The scenarios shipped with the package: name -> file."""
    folder = Path(str(resources.files("pagewalk.study"))) / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read(name_or_path: str) -> Scenario:
    """Read a packaged scenario by name, or a scenario file.

    Raises
    ------
    BadInput
        No such scenario, or not a valid one.
    """
    known = packaged()
    path = known.get(name_or_path) or Path(name_or_path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        scenario = msgspec.convert(content, Scenario)
    except OSError as error:
        mend = f"name a file, or one of: {', '.join(known)}"
        raise BadInput(name_or_path, error.strerror or "cannot be read", mend) from error
    except UnicodeDecodeError as error:
        raise BadInput(path, f"byte {error.start} is not UTF-8", "save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(path, f"not TOML: {error}", "mend that line") from error
    except msgspec.ValidationError as error:
        raise BadInput(path, str(error), "see docs/scenarios.md for the keys") from error
    if not scenario.machines or not scenario.mappings:
        raise BadInput(path, "machines or mappings is empty", "name at least one of each")

    def beside(entry: str) -> str:
        return str(path.parent / entry) if entry.endswith(".toml") or "/" in entry else entry

    return msgspec.structs.replace(
        scenario,
        name=path.stem,
        trace=scenario.trace if ":" in scenario.trace else str(path.parent / scenario.trace),
        machines=[beside(machine) for machine in scenario.machines],
    )
