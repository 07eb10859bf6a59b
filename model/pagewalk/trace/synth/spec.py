"""Descriptions of synthetic traces as people write them: ``zipf?size=1G&accesses=1e7``."""

import itertools
import math
import re
from typing import Any, get_type_hints
from urllib.parse import parse_qsl

import msgspec

from pagewalk.errors import BadInput
from pagewalk.trace.synth.kinds import (
    GAP,
    KINDS,
    Chase,
    Mixed,
    Probes,
    Sequential,
    Stride,
    Synthetic,
    Uniform,
    Zipf,
)

SCALES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse(text: str) -> Synthetic:
    """Read ``KIND?FIELD=VALUE&...``.

    Sizes may be written 64M, 64MiB or 0x4000000, counts 1000000 or 1e6. ``part=`` of a mixed trace may be
    repeated; its own ``?`` and ``&`` are written %3F and %26.

    Raises
    ------
    BadInput
        If there is no such kind or field, or a value is out of its range.
    """
    name, _, query = text.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=100)
    except ValueError as error:
        raise BadInput(f"synth:{text}", str(error), "write KIND?FIELD=VALUE&FIELD=VALUE") from None
    given: dict[str, str | tuple[str, ...]] = {}
    for key, value in pairs:
        if key == "part":
            given[key] = (*given.get(key, ()), value)
        elif key in given:
            raise BadInput(f"synth:{text}", f"{key} is given twice", "give it once")
        else:
            given[key] = value
    return make(name, given)


def make(name: str, given: dict[str, str | tuple[str, ...]]) -> Synthetic:
    """Describe a trace of the kind called `name` by fields as people write them.

    Raises
    ------
    BadInput
        As `parse`.
    """
    if name not in KINDS:
        raise BadInput(f"synth:{name}", "no such kind", f"there are: {', '.join(KINDS)}")
    where = f"synth:{name}"
    known = fields(KINDS[name])
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in known:
            raise BadInput(f"{where}?{key}=", "no such field", f"there are: {', '.join(known)}")
        values[key] = text if isinstance(text, tuple) else _value(f"{where}?{key}={text}", text, *known[key])
    try:
        kind = msgspec.convert(values, KINDS[name])
    except msgspec.ValidationError as error:
        raise BadInput(where, str(error), f"see pagewalk trace synth {name} --help") from None
    if kind.base + extent(kind) > 1 << 64:
        raise BadInput(where, "it ends above the highest address", "choose a lower base or a smaller size")
    return kind


def fields(kind: type[Synthetic]) -> dict[str, tuple[type, msgspec.Meta]]:
    """Each field's type and what is said of it; those of its own first."""
    hints = get_type_hints(kind, include_extras=True)
    common = Synthetic.__struct_fields__
    ordered = (*(name for name in kind.__struct_fields__ if name not in common), *common)
    return {name: (hints[name].__origin__, hints[name].__metadata__[0]) for name in ordered}


def parts_of(kind: Mixed) -> list[tuple[float, Synthetic]]:
    """The weight and description of each part.

    Raises
    ------
    BadInput
        If a part is not ``WEIGHT*KIND?...``, is mixed itself, or has a field that belongs to the whole.
    """
    parts = []
    for text in kind.part:
        weight, star, description = text.partition("*")
        where, mend = (
            f"synth:mixed part {text!r}",
            "write WEIGHT*KIND?FIELD=VALUE&..., such as 2*zipf?size=1G",
        )
        if not star or not re.fullmatch(r"\d{1,9}(\.\d{1,9})?|\.\d{1,9}", weight) or not float(weight):
            raise BadInput(where, "no weight above 0", mend)
        part = parse(description)
        if isinstance(part, Mixed):
            raise BadInput(where, "a part is mixed itself", "give its parts instead")
        common = Synthetic.__struct_fields__
        if any(getattr(part, name) != getattr(Synthetic(), name) for name in common):
            raise BadInput(where, f"{', '.join(common)} belong to the whole", "give them there")
        parts.append((float(weight), part))
    return parts


def extent(kind: Synthetic) -> int:
    """Bytes from the lowest to behind the highest address."""
    match kind:
        case Probes():
            return starts([kind.table, kind.heap, kind.hot_size])[-1] + kind.hot_size
        case Mixed():
            extents = [extent(part) for _, part in parts_of(kind)]
            return starts(extents)[-1] + extents[-1]
        case Uniform() | Zipf() | Sequential() | Stride() | Chase():
            return kind.size
    raise TypeError(kind)


def starts(extents: list[int]) -> list[int]:
    """Where parts of the given sizes begin, one behind the other."""
    rounded = (-(-extent // GAP) * GAP + GAP for extent in extents[:-1])
    return list(itertools.accumulate(rounded, initial=0))


def _value(where: str, text: str, type_: type, about: msgspec.Meta) -> int | float:
    """A number as people write it."""
    unit = (about.extra or {}).get("unit")
    try:
        if type_ is float and math.isfinite(fraction := float(text)):
            return fraction
        if unit == "bytes" and (size := re.fullmatch(r"(\d{1,15})([KMGTkmgt]?)(?:i?B)?", text)):
            return int(size[1]) << SCALES[size[2].lower()]
        if unit is None and re.fullmatch(r"\d{1,15}(\.\d{1,6})?[eE]\d{1,2}", text):
            count = float(text)
            if count.is_integer():
                return int(count)
        return int(text, 0)
    except ValueError:
        written = {"bytes": "a size, such as 64M", "address": "an address, such as 0xffffc90000000000"}
        raise BadInput(where, "no number", f"write {written.get(str(unit), 'a number')}") from None
