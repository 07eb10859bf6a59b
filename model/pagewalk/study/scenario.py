"""A scenario as a small TOML file: a trace and mappings, or kernels and what happens to their memory."""

import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from pagewalk.errors import BadInput, meant
from pagewalk.files import read_at_most
from pagewalk.hardware.load import load
from pagewalk.linux.boot import TABLE_PARAMETERS
from pagewalk.study.play.steps import KernelTable, Step

LARGEST_BYTES = 1 << 20
"""A file beyond it is no scenario. Ours."""

DEFAULT = "gitdiff"
"""What ``pagewalk run`` runs when nothing is named."""


PARAMETERS = ("nohugevmalloc", "nohugeiomap", "hashdist", *TABLE_PARAMETERS)
"""Boot parameters that change what is modelled."""

SIZE = re.compile(r"(\d{1,12})([KMGT])")
"""A size as people write it; everywhere but in names."""


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to replay: a trace under mappings, or the accesses of events under kernels.

    Attributes
    ----------
    schema : str
        "pagewalk.scenario/1".
    title : str
        One line for people.
    machines : list of str
        Preset names, or machine files relative to the scenario's file.
    trace : str
        A trace, relative to the scenario's file; or "sample:NAME", "synth:KIND?..." as on the command line.
    mappings : list of str
        Of the trace.
    kernel : list of KernelTable
        Kernels that live through the events, where there is no trace.
    event : list of Step
    cache_mode : {"walks-only", "full"}
    name, file : str
        The file and its stem; set by the reader.
    """

    schema: Literal["pagewalk.scenario/1"]
    title: str
    machines: list[str]
    trace: str = ""
    mappings: list[str] = field(default_factory=lambda: ["base", "pmd"])
    kernel: list[KernelTable] = field(default_factory=list)
    event: list[Step] = field(default_factory=list)
    cache_mode: Literal["walks-only", "full"] = "walks-only"
    name: str = ""
    file: str = ""


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
        content = tomllib.loads(read_at_most(path, LARGEST_BYTES).decode())
        scenario = msgspec.convert(_sized(content), Scenario)
    except OSError as error:
        mend = meant(name_or_path, known) or "name a file, or one of pagewalk run --list"
        raise BadInput(name_or_path, error.strerror or "cannot be read", mend) from error
    except UnicodeDecodeError as error:
        raise BadInput(path, f"byte {error.start} is not UTF-8", "save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(path, f"not TOML: {error}", "mend that line") from error
    except msgspec.ValidationError as error:
        size = "`int`, got `str`" in str(error)
        mend = 'write a number, or a size like "64K"' if size else "see docs/scenarios.md for the keys"
        raise BadInput(path, str(error), mend) from error
    _check(scenario, path)
    trace_file = bool(scenario.trace) and ":" not in scenario.trace
    return msgspec.structs.replace(
        scenario,
        name=path.stem,
        file=str(path),
        trace=scenario.trace if not trace_file else str(path.parent / scenario.trace),
        machines=[_beside(machine, path) for machine in scenario.machines],
    )


def _beside(machine: str, path: Path) -> str:
    """A preset's name as it is, a file's relative to the scenario's."""
    return str(path.parent / machine) if machine.endswith(".toml") or "/" in machine else machine


def _check(scenario: Scenario, path: Path) -> None:
    """Refuse what the types let through."""
    if not scenario.machines or not scenario.mappings:
        raise BadInput(path, "machines or mappings is empty", "name at least one of each")
    for machine in scenario.machines:
        try:
            load(_beside(machine, path))
        except BadInput as error:
            raise BadInput(f"{path}: machines: {error.where}", error.what, error.mend) from None
    if bool(scenario.trace) == bool(scenario.kernel):
        raise BadInput(path, "needs either trace or [[kernel]]", "give one of the two")
    if bool(scenario.kernel) != bool(scenario.event):
        raise BadInput(path, "[[kernel]] and [[event]] belong together", "give both or neither")
    kernels = [kernel.name for kernel in scenario.kernel]
    for kernel in scenario.kernel:
        if not kernel.name or kernels.count(kernel.name) > 1:
            what = f"{kernel.name!r} is no name, or stands twice"
            raise BadInput(f"{path}: kernel", what, "name each its own")
        for parameter in kernel.parameters:
            if parameter.partition("=")[0] not in PARAMETERS:
                what = f"no boot parameter {parameter!r} is modelled"
                raise BadInput(f"{path}: kernel {kernel.name}", what, f"one of {', '.join(PARAMETERS)}")


def _sized(value: Any, key: str = "") -> Any:
    """Sizes like "64M" as numbers of bytes, everywhere below `value` but in names."""
    if isinstance(value, dict):
        return {name: _sized(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_sized(inner, key) for inner in value]
    if isinstance(value, str) and key not in ("name", "what", "title") and (size := SIZE.fullmatch(value)):
        return int(size[1]) << 10 * (1 + "KMGT".index(size[2]))
    return value
