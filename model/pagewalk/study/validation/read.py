"""Reading case files; every refusal names file, key and mend."""

import re
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pagewalk.errors import BadInput, meant
from pagewalk.hardware.load import build, load
from pagewalk.hardware.machine import Machine
from pagewalk.study.validation.case import (
    EACH,
    FOUND_IN,
    KNEES,
    LIMITS,
    PATTERNS,
    PER_ACCESS,
    REACHES,
    SAID_OTHERWISE,
    SIZES_IN,
    AnyPattern,
    BootTables,
    Case,
    Chase,
    Measured,
    Unpredicted,
    Updates,
)

LARGEST_BYTES = 1 << 20
"""Of a case file; ours."""

LONGEST_SWEEP = 10_000
"""Measured values in one table; ours."""


def packaged() -> dict[str, Path]:
    """The cases shipped with the package: name -> file."""
    folder = Path(str(resources.files("pagewalk.study.validation"))) / "cases"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read(name_or_path: str) -> Case:
    """Read a packaged case by name, or a case file.

    Raises
    ------
    BadInput
        No such case, or not a valid one; names the key and the mend.
    """
    path = packaged().get(name_or_path) or Path(name_or_path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_BYTES + 1)
        if len(raw) > LARGEST_BYTES:
            raise BadInput(path, "larger than 1 MiB", "give a case file")
        content = tomllib.loads(raw.decode())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, tomllib.TOMLDecodeError):
            raise BadInput(path, f"not TOML: {error}", "mend that line") from None
        if isinstance(error, UnicodeDecodeError):
            raise BadInput(f"{path}: byte {error.start}", "not UTF-8 text", "give a TOML file") from None
        what = getattr(error, "strerror", None) or "cannot be read"
        mend = meant(name_or_path, packaged()) or "name a case file, or one of pagewalk validate --list"
        raise BadInput(name_or_path[:200], what, mend) from None
    return build_case(content, path)


def build_case(content: dict[str, Any], path: Path) -> Case:
    """Make a case of the content of its file.

    Raises
    ------
    BadInput
        As `read`.
    """
    _known(content, Case, "", path)
    pattern = content.get("pattern")
    if isinstance(pattern, dict) and str(said := pattern.get("kind")) not in PATTERNS:
        mend = _meant(str(said), list(PATTERNS)) or f"give one of {', '.join(PATTERNS)}"
        raise BadInput(f"{path}: pattern.kind", f"no pattern {str(said)[:40]!r}", mend)
    if isinstance(pattern, dict) and (kind := PATTERNS.get(str(pattern.get("kind")))):
        _known(pattern, kind, "pattern.", path, "kind")
        content = content | {"pattern": {k: _size(path, f"pattern.{k}", k, v) for k, v in pattern.items()}}
    for place, entry in enumerate(_dicts(content.get("measured"))):
        _known(entry, Measured, f"measured[{place}].", path)
        _sizes_measured(entry, f"{path}: measured[{place}]")
    try:
        case = msgspec.convert(content, Case)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        key = where.strip("`").removeprefix("$").removeprefix(".") or "the file"
        raise BadInput(f"{path}: {key}", what.replace("`", ""), _choices(key)) from None
    case = msgspec.structs.replace(case, name=path.stem, folder=str(path.parent))
    _check(case, path)
    return case


def machine_of(case: Case) -> Machine:
    """The machine that a case names or describes.

    Raises
    ------
    BadInput
        No such machine, or not a valid one.
    """
    where = f"{case.name}: machine"
    if isinstance(case.machine, dict):
        return build(case.machine, case.name, where)
    beside = Path(case.folder) / case.machine
    is_file = case.machine.endswith(".toml") or "/" in case.machine
    return load(str(beside) if is_file else case.machine)


def changed(pattern: AnyPattern, keys: dict[str, Any], where: str) -> AnyPattern:
    """The pattern with some keys replaced.

    Raises
    ------
    BadInput
        A key that the pattern has not, or a value that it cannot have.
    """
    fields = [name for name in pattern.__struct_fields__ if name != "kind"]
    for key in keys:
        if key not in fields:
            mend = _meant(key, fields) or f"it has {', '.join(fields)}"
            raise BadInput(f"{where}.{key[:40]}", "no key of this pattern", mend)
    content = msgspec.to_builtins(pattern) | {k: _size(where, f"{where}.{k}", k, v) for k, v in keys.items()}
    try:
        made: AnyPattern = msgspec.convert(content, AnyPattern)
    except msgspec.ValidationError as error:
        what, _, key = str(error).replace("`", "").partition(" - at $.")
        raise BadInput(f"{where}.{key}".rstrip("."), what, _choices(key)) from None
    _check_pattern(made, where)
    return made


def _check(case: Case, path: Path) -> None:
    for key in ("title", "source"):
        if not getattr(case, key).strip():
            raise BadInput(f"{path}: {key}", "is empty", "say it in a line")
    if isinstance(case.pattern, Unpredicted):
        return
    if not case.measured:
        raise BadInput(f"{path}: measured", "nothing was measured", "add [[measured]]")
    if not case.machine and not isinstance(case.pattern, BootTables):
        raise BadInput(f"{path}: machine", "is missing", "name a preset or a machine file")
    _check_pattern(case.pattern, f"{path}: pattern")
    for place, entry in enumerate(case.measured):
        _check_measured(entry, case.pattern, f"{path}: measured[{place}]")


def _check_pattern(pattern: AnyPattern, where: str) -> None:
    for key, (least, most) in LIMITS.items():
        value = getattr(pattern, key, least)
        if not least <= value <= most:
            raise BadInput(f"{where}.{key}", f"{value} is out of range", f"give {least} to {most}")
    if isinstance(pattern, Chase):
        if pattern.chains < 1:
            raise BadInput(f"{where}.chains", "a chase has at least one chain", "give 1 or more")
        if pattern.span % pattern.stride:
            what = f"{pattern.span} bytes are no whole number of strides of {pattern.stride}"
            raise BadInput(f"{where}.span", what, "give a multiple of the stride")
        if pattern.count > LIMITS["pages"][1]:
            what, most = f"{pattern.count} nodes", LIMITS["pages"][1]
            raise BadInput(f"{where}.span", what, f"give at most {most} times the stride")
        if pattern.pages * pattern.stride > 1 << 46:
            raise BadInput(f"{where}.pages", "the pages span more than 64 TiB", "give fewer, or less stride")
    if isinstance(pattern, Updates):
        if pattern.table % 8:
            raise BadInput(f"{where}.table", "is no whole number of 8-byte words", "give 64G, 48G ...")
        if (pattern.mirror or pattern.generator == "hpcc") and pattern.table & (pattern.table - 1):
            raise BadInput(f"{where}.table", "is no power of two, as mirror and hpcc ask", "give 64G, 1G ...")


def _check_measured(entry: Measured, pattern: AnyPattern, where: str) -> None:
    known = PER_ACCESS + EACH + KNEES + REACHES
    if isinstance(pattern, BootTables):
        if not re.match(r"(entries|bytes) \S", entry.quantity):
            raise BadInput(f"{where}.quantity", "unknown quantity", 'give "entries NAME" or "bytes NAME"')
    elif entry.quantity not in known and not entry.quantity.startswith(FOUND_IN):
        mend = _meant(entry.quantity, known) or f"give one of {', '.join(known)}, {FOUND_IN}NAME"
        raise BadInput(f"{where}.quantity", f"no quantity {entry.quantity[:40]!r}", mend)
    if entry.quantity in KNEES + REACHES and not isinstance(pattern, Chase):
        raise BadInput(f"{where}.quantity", "only a chase has knees", "give a chase")
    if entry.over and entry.less:
        raise BadInput(where, "has over and less", "give a ratio or a difference")
    lists = [key for key, value in entry.at.items() if isinstance(value, list)]
    if len(lists) > 1:
        raise BadInput(f"{where}.at", f"{' and '.join(lists)} are lists", "give one list")
    if (entry.value is None) == (not entry.values):
        raise BadInput(where, "needs value or values, not both", "give one of them")
    wanted = len(entry.at[lists[0]]) if lists else 1
    if lists and len(entry.values) != wanted:
        what = f"{len(entry.values)} values for {wanted} of {lists[0]}"
        raise BadInput(f"{where}.values", what, "give as many of one as of the other")
    if entry.values and not lists:
        raise BadInput(f"{where}.values", "no list in at says what they belong to", "give value, or a list")
    if wanted > LONGEST_SWEEP:
        raise BadInput(f"{where}.values", f"more than {LONGEST_SWEEP}", "split the table")
    for number in [entry.value or 0.0, *entry.values]:
        if not abs(number) < 1e30:
            raise BadInput(f"{where}.values", f"{number} is no measurement", "give finite numbers")
    if isinstance(entry.band, list) and (len(entry.band) != 2 or not entry.band[0] <= entry.band[1]):
        raise BadInput(f"{where}.band", "is no [low, high]", "give two numbers in order, or one share")
    if isinstance(entry.band, (int, float)) and not 0 <= entry.band < 1e6:
        raise BadInput(f"{where}.band", f"{entry.band} is no share", "give 0.2 for 20 %")
    for number, keys in enumerate(points(entry)):
        here = changed(pattern, keys, f"{where}.at")
        if not number:
            changed(changed(here, entry.over, f"{where}.over"), entry.less, f"{where}.less")
    if entry.per == "run" and not getattr(pattern, "accesses", 1):
        raise BadInput(f"{where}.per", "how many accesses the run made is not said", "give pattern.accesses")


def points(entry: Measured) -> list[dict[str, Any]]:
    """What to change in the pattern for each measured value."""
    lists = [key for key, value in entry.at.items() if isinstance(value, list)]
    if not lists:
        return [entry.at]
    return [entry.at | {lists[0]: value} for value in entry.at[lists[0]]]


def _size(path: object, where: str, key: str, value: Any) -> Any:
    """A size as people write it: in bytes, or, of a leaf, as its name here."""
    if key not in (*SIZES_IN, "leaf", "host") or not isinstance(value, str) or not value:
        return value
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?([KMGT]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    if key not in SIZES_IN:
        return f"{found[1]}{found[2].upper()}" if found else value
    bytes_ = float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " ") if found else 0.5
    if bytes_ != int(bytes_):
        place = where if str(path) in where else f"{path}: {where}"
        raise BadInput(place, f"{value[:40]!r} is no size", 'write 4096, "64K" or "2M"')
    return int(bytes_)


def _sizes_measured(entry: dict[str, Any], where: str) -> None:
    """Turn measured sizes that are written as text into bytes."""
    if isinstance(entry.get("value"), str):
        entry["value"] = _size(where, f"{where}.value", "span", entry["value"])
    if isinstance(entry.get("values"), list):
        entry["values"] = [_size(where, f"{where}.values", "span", value) for value in entry["values"]]


def _meant(said: str, known: Sequence[str]) -> str:
    """What may have been meant by an unknown name; "" if nothing comes near."""
    plain = said.casefold()
    for word in (plain, plain.partition(":")[0], plain.partition(":")[0].rpartition(".")[2]):
        if name := SAID_OTHERWISE.get(word):
            return f"that is {name} here"
        if word in known:
            return f"that is {word} here"
    return meant(said, known)


def _choices(key: str) -> str:
    """Values that a key may have, if they are few."""
    for kind in (*PATTERNS.values(), Measured):
        for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
            if field.name == key.rpartition(".")[2] and (given := getattr(field.type, "values", ())):
                return "give one of " + ", ".join(str(value) or '""' for value in given)
    return "see docs/cases.md"


def _dicts(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _known(table: dict[str, Any], kind: type[Struct], where: str, path: Path, *also: str) -> None:
    known = [name for name in kind.__struct_fields__ if name not in ("name", "folder")] + list(also)
    for key in table:
        if key not in known:
            mend = _meant(key, known) or f"the keys here are {', '.join(known)}"
            raise BadInput(f"{path}: {where}{key[:40]!r}", "unknown key", mend)
