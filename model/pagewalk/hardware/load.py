"""Reading machine files: presets by name, anyone's TOML by path.

A file may start from a preset (``extends = "intel-skylake-sp"``) and say only what differs:

* a plain key replaces the preset's;
* a table (``[memory]``, ``[walker]`` ...) is merged key by key;
* an entry of ``[[tlb]]``, ``[[psc]]`` or ``[[cache]]`` whose name the preset has is merged key by key into
  that one; any other is added behind;
* a figure that changes without a ``source`` in the same table counts as assumed: "set in FILE".
"""

import difflib
import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from pagewalk.errors import BadInput
from pagewalk.hardware.check import check
from pagewalk.hardware.machine import (
    AddressSpaces,
    Cache,
    Flush,
    Guest,
    Machine,
    Memory,
    Psc,
    Tlb,
    Walker,
)

PRESETS = Path(__file__).parent / "presets"
SOURCES = Path(__file__).parent / "sources.toml"

NOT_MODELLED = {
    "arm-neoverse-n2": "public statements of its TLB sizes disagree, and no latency is published",
}
"""Processors of the reference without a preset, and why."""

LARGEST_BYTES = 1 << 20
"""Of a machine file. Ours; the presets are below 16 KiB."""

TABLES: dict[str, type[msgspec.Struct]] = {
    "tlb": Tlb,
    "psc": Psc,
    "cache": Cache,
    "memory": Memory,
    "walker": Walker,
    "flush": Flush,
    "spaces": AddressSpaces,
    "guest": Guest,
}
NOTES = ("source", "confidence", "assumed")
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
        name_or_path[:80], "no preset of that name", _meant(name_or_path, names()) or "see pagewalk machines"
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
    content = _complete(_toml(path), shown)
    _unknown_keys(content, shown)
    try:
        machine = msgspec.convert(content, Machine)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), shown) from None
    check(machine, shown)
    digest = hashlib.sha256(msgspec.json.encode(machine, order="sorted")).hexdigest()
    return msgspec.structs.replace(machine, id=path.stem, sha256=digest)


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
    """Put a file that extends a preset on top of that preset."""
    if "extends" not in content:
        return content
    base = content["extends"]
    if base not in names():
        raise BadInput(
            f"{shown}: extends",
            f"no preset {str(base)[:80]!r}",
            _meant(str(base), names()) or "see pagewalk machines",
        )
    below = _complete(_toml(PRESETS / f"{base}.toml"), base)
    return _merged(below, {key: value for key, value in content.items() if key != "extends"}, shown)


def _merged(below: dict[str, Any], above: dict[str, Any], shown: object) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            result[key] = _merged(old, value, shown) if key in TABLES else old | value
        elif key in TABLES and isinstance(old, list) and isinstance(value, list):
            result[key] = _merged_lists(old, value, shown)
        else:
            result[key] = value
    changed = [
        key for key in above if key not in NOTES and result[key] != below.get(key) and key not in TABLES
    ]
    reasons = {key: why for key, why in _dict(below.get("assumed")).items() if key not in changed}
    if "source" in above and "source" in below:
        result["source"] = f"{above['source']}; else {below['source']}"
    elif "source" not in above and "schema" not in below:
        reasons |= {key: f"set in {shown}" for key in changed if key != "name"}
    if reasons or "assumed" in above:
        mine = above.get("assumed", {})
        result["assumed"] = reasons | mine if isinstance(mine, dict) else mine
    return result


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _merged_lists(below: list[Any], above: list[Any], shown: object) -> list[Any]:
    result = list(below)
    places = {entry["name"]: place for place, entry in enumerate(below)}
    for entry in above:
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in places:
            result[places[name]] = _merged(result[places[name]], entry, shown)
        else:
            result.append(entry)
    return result


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
                for inner, psc in enumerate(_list(table.get("host_psc")) if key == "guest" else []):
                    _known(_dict(psc), Psc.__struct_fields__, f"{where}host_psc[{inner}].", shown)


def _known(table: dict[str, Any], known: Any, where: str, shown: object) -> None:
    for key in table:
        if key not in known:
            raise BadInput(
                f"{shown}: {where}{_quoted(key)}",
                "unknown key",
                _meant(key, known) or f"the keys here are {', '.join(known)}",
            )


def _quoted(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,40}", key) else repr(key[:40])


def _meant(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word[:80], list(known), 1)
    return f"did you mean {near[0]}?" if near else ""


def _wrong_type(message: str, shown: object) -> BadInput:
    """Say in our words what msgspec found: "Expected `int`, got `str` - at `$.tlb[1].ways`"."""
    what, _, where = message.partition(" - at ")
    place = where.strip("`").removeprefix("$").removeprefix(".").replace("[...]", "") or "the file"
    what = (
        what.replace("`", "")
        .replace("Object missing required field", "lacks")
        .replace("Expected", "expected")
    )
    mend = "see docs/machines.md"
    if missing := re.fullmatch(r"lacks (\w+)", what):
        mend = f"add {missing[1]} = ..."
    elif what == "expected array, got object" and place in TABLES:
        mend = f"write [[{place}]]"
    elif kind := _choices(place):
        mend = f"give one of {', '.join(map(str, kind))}"
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
