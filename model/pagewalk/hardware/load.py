"""Reading machine files: presets by name, anyone's TOML by path; every refusal names file, key and mend."""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from pagewalk.errors import BadInput, meant
from pagewalk.hardware.check import GEOMETRIES, check
from pagewalk.hardware.extend import merged
from pagewalk.hardware.machine import TABLES, Machine, Psc

PRESETS = Path(__file__).parent / "presets"
SOURCES = Path(__file__).parent / "sources.toml"

NOT_MODELLED = {
    "arm-neoverse-n2": "public statements of its TLB sizes disagree, and no latency is published",
}
"""Processors of the reference without a preset, and why."""

LARGEST_BYTES = 1 << 20
"""Of a machine file. Ours; the presets are below 16 KiB."""

SET_BY_LOADER = ("id", "sha256")


def names() -> list[str]:
    """Names of the presets, sorted."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load(name_or_path: str) -> Machine:
    """Give a machine by the name of a preset or the path of a file.

    Parameters
    ----------
    name_or_path : str
        A name of `names`, or a path that ends in ``.toml`` or exists.

    Raises
    ------
    BadInput
        Unknown name, or a file that `read` refuses.
    """
    if name_or_path in names():
        return read(PRESETS / f"{name_or_path}.toml")
    if name_or_path.endswith(".toml") or _exists(name_or_path):
        return read(name_or_path)
    if reason := NOT_MODELLED.get(name_or_path):
        raise BadInput(name_or_path, f"there is no preset: {reason}", "describe it in a TOML file")
    raise BadInput(
        name_or_path[:80], "no preset of that name", meant(name_or_path, names()) or "see pagewalk machines"
    )


def sources() -> dict[str, str]:
    """What the source names in the presets stand for: name -> publication."""
    return tomllib.loads(SOURCES.read_text(encoding="utf-8"))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def read(path: str | Path) -> Machine:
    """Read, complete and check a machine file.

    Parameters
    ----------
    path : str or Path
        TOML, at most 1 MiB.

    Returns
    -------
    Machine
        With `id` the file's stem and `sha256` of everything else.

    Raises
    ------
    BadInput
        Unreadable file, bad TOML, unknown key, wrong type, impossible machine; one line that names
        file, key and mend.
    """
    path = Path(path)
    shown = path.stem if path.parent == PRESETS else path
    return build(_toml(path), path.stem, shown)


def build(content: dict[str, Any], name: str, where: object) -> Machine:
    """Make a machine of the content of a machine file.

    Parameters
    ----------
    content : dict
        As TOML reads it; may extend a preset.
    name : str
        Becomes `id`.
    where : object
        Named in messages.

    Raises
    ------
    BadInput
        As `read`.
    """
    content = _complete(content, where)
    _unknown_keys(content, where)
    try:
        machine = msgspec.convert(content, Machine)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), where) from None
    check(machine, where)
    digest = hashlib.sha256(msgspec.json.encode(machine, order="sorted")).hexdigest()
    return msgspec.structs.replace(machine, id=name, sha256=digest)


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput(path, f"cannot be read ({reason})", "give the path of a machine file") from None
    if len(content) > LARGEST_BYTES:
        raise BadInput(path, "larger than 1 MiB", "give a machine file")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: byte {error.start}", "not UTF-8 text", "give a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise BadInput(path, f"not TOML: {error}", "mend that line") from None
    except (RecursionError, ValueError):
        raise BadInput(
            path, "not TOML: nested too deeply, or a number too long", "give a TOML file"
        ) from None


def _complete(content: dict[str, Any], shown: object) -> dict[str, Any]:
    """Put a file that extends a preset on top of that preset; times are cycles then.

    The preset's caches of table levels that the file's geometry has not are left out.
    """
    if "extends" not in content:
        return _in_cycles(content, content.get("clock_ghz"), shown)
    base = content["extends"]
    if base not in names():
        raise BadInput(
            f"{shown}: extends",
            f"no preset {str(base)[:80]!r}",
            meant(str(base), names()) or "see pagewalk machines",
        )
    below = _complete(_toml(PRESETS / f"{base}.toml"), base)
    above = {key: value for key, value in content.items() if key != "extends"}
    result = merged(below, _in_cycles(above, above.get("clock_ghz", below.get("clock_ghz")), shown))
    if isinstance(result.get("psc"), list):
        levels = GEOMETRIES.get(str(result.get("geometry")), ("", 64))[1]
        beyond = [psc for psc in below.get("psc", []) if psc["level"] > levels]
        result["psc"] = [psc for psc in result["psc"] if psc not in beyond]
    return result


def _in_cycles(content: dict[str, Any], clock_ghz: Any, shown: object) -> dict[str, Any]:
    """Turn each `latency_ns` of caches and memory into `latency_cycles` of the machine's clock."""
    changed = dict(content)
    for key in ("cache", "memory"):
        value = content.get(key)
        if isinstance(value, list):
            changed[key] = [
                _cycles(table, clock_ghz, f"{shown}: {key}[{place}]") for place, table in enumerate(value)
            ]
        elif key in content:
            changed[key] = _cycles(value, clock_ghz, f"{shown}: {key}")
    return changed


def _cycles(table: Any, clock_ghz: Any, where: str) -> Any:
    if not isinstance(table, dict) or "latency_ns" not in table:
        return table
    ns = table["latency_ns"]
    if isinstance(ns, bool) or not isinstance(ns, (int, float)) or not 0 < ns < 1e6:
        raise BadInput(f"{where}.latency_ns", "is no time in nanoseconds", "give a number above 0")
    if "latency_cycles" in table:
        raise BadInput(f"{where}.latency_ns", "latency_cycles is given too", "give one of them")
    if isinstance(clock_ghz, bool) or not isinstance(clock_ghz, (int, float)) or not 0 < clock_ghz < 100:
        raise BadInput(f"{where}.latency_ns", "the machine has no clock", "give clock_ghz, or latency_cycles")
    made = {key: value for key, value in table.items() if key != "latency_ns"}
    made["latency_cycles"] = round(ns * clock_ghz)
    why = f"own arithmetic: {ns:g} ns at {clock_ghz:g} GHz"
    if isinstance(table.get("assumed", {}), dict):
        made["assumed"] = {"latency_cycles": why} | table.get("assumed", {})
    return made


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _unknown_keys(content: dict[str, Any], shown: object) -> None:
    """Refuse keys that mean nothing, with the nearest that does."""
    known = [key for key in Machine.__struct_fields__ if key not in SET_BY_LOADER]
    _known(content, [*known, "extends"], "", shown)
    for key, kind in TABLES.items():
        value = content.get(key)
        listed = isinstance(value, list)
        for place, table in enumerate(_list(value) if listed else [value]):
            if isinstance(table, dict):
                where = f"{key}[{place}]." if listed else f"{key}."
                _known(table, kind.__struct_fields__, where, shown)
                for inner, psc in enumerate(_list(table.get("host_psc"))):
                    if isinstance(psc, dict):
                        _known(psc, Psc.__struct_fields__, f"{where}host_psc[{inner}].", shown)


def _known(table: dict[str, Any], known: Any, where: str, shown: object) -> None:
    for key in table:
        if key not in known:
            raise BadInput(
                f"{shown}: {where}{_quoted(key)}",
                "unknown key",
                meant(key, known) or f"the keys here are {', '.join(known)}",
            )


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else repr(key[:40])


WANTED = {
    "int": "a whole number",
    "float": "a number",
    "str": "text in quotes",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a table",
}


def _wrong_type(message: str, shown: object) -> BadInput:
    """Say in our words what msgspec found: "Expected `int`, got `str` - at `$.tlb[1].ways`"."""
    what, _, where = message.partition(" - at ")
    place = where.strip("`").removeprefix("$").removeprefix(".").replace("[...]", "") or "the file"
    what = what.replace("`", "").replace("Object missing required field", "lacks")
    what = what.replace("Expected", "expected").replace("Invalid enum value", "cannot be")
    mend = "give one"
    if missing := re.fullmatch(r"lacks (\w+)", what):
        mend = f"add {missing[1]} = ..."
    elif place in TABLES and what.startswith("expected array"):
        mend = f"write [[{place}]]"
    elif kind := _choices(place):
        mend = f"give one of {', '.join(map(str, kind))}"
    elif wanted := re.match(r"expected (\w+)", what):
        mend = f"give {WANTED.get(wanted[1], wanted[1])}"
    return BadInput(f"{shown}: {place}", what, mend)


def _choices(place: str) -> tuple[Any, ...]:
    """Values that a key of a `Literal` type may have."""
    found = re.fullmatch(r"(?:(\w+)(?:\[\d+\])?\.)?(\w+)(?:\[\d+\])?", place)
    if not found:
        return ()
    struct = TABLES.get(found[1]) if found[1] else Machine
    if struct is None:
        return ()
    for field in msgspec.inspect.type_info(struct).fields:  # type: ignore[attr-defined]
        if field.name == found[2]:
            kind = getattr(field.type, "item_type", field.type)
            return getattr(kind, "values", ())
    return ()
