"""A calibration as files: the machine, the case that tries it, and the curves that it came from."""

import json
from typing import Any

import msgspec

from pagewalk.study.calibration.calibrate import Calibration

BAND = 0.25
"""Of the held-out predictions: the worst that this project allows itself."""


def machine_file(found: Calibration) -> str:
    """The machine file, with each measured value and where it lies in comments."""
    head = [
        "# Written by pagewalk calibrate. What is not here is the preset's.",
        *(
            f"# {name}: {v.value:.4g} ({v.low:.4g} to {v.high:.4g}); {v.how}"
            for name, v in found.values.items()
        ),
    ]
    unknown = {"unknown": found.missing} if found.missing else {}
    return "\n".join(head) + "\n" + toml(found.file | unknown)


def case_file(found: Calibration, machine: str) -> str:
    """The chases that no fit used, as a case for ``pagewalk validate``.

    Parameters
    ----------
    found : Calibration
    machine : str
        The machine file, relative to the case's.
    """
    measured = [
        {
            "quantity": "cycles",
            "at": {k: getattr(point.pattern, k) for k in ("pages", "stride", "leaf", "chains", "frames")},
            "value": round(point.cycles, 2),
            "band": BAND,
            "note": f"the middle pass took {point.spread:.1%} longer",
        }
        for point, _ in found.held_out
    ]
    content = {
        "schema": "pagewalk.case/1",
        "title": "Chases on the calibrated machine that no fit used",
        "source": f"pagewalk calibrate on {found.here.processor}",
        "machine": machine,
        "pattern": {"kind": "chase"},
        "measured": measured,
    }
    return toml(content)


def curves(found: Calibration) -> bytes:
    """Every timed chase, every value with where it lies, as JSON (schema ``pagewalk.calibration/1``)."""
    content = {
        "schema": "pagewalk.calibration/1",
        "processor": found.here.processor,
        "guest": found.here.guest,
        "preset": found.here.preset,
        "preset_is_of_this_processor": found.here.exact,
        "values": {name: value._asdict() for name, value in found.values.items()},
        "missing": found.missing,
        "stolen": found.stolen,
        "tlb": {
            "first": found.tlb.first._asdict(),
            "second": found.tlb.second._asdict(),
            "data_cycles": found.data.tolist(),
            "explained_cycles": (found.data + found.tlb.explained).tolist(),
            "error": found.tlb.error,
        },
        "held_out": [cycles for _, cycles in found.held_out],
        "points": {
            name: [{"pattern": msgspec.to_builtins(p.pattern), "passes": p.passes} for p in points]
            for name, points in found.points.items()
        },
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def toml(content: dict[str, Any], prefix: str = "") -> str:
    """Plain data as TOML: values first, then tables, then lists of tables; None is left out."""
    lines, below = [], []
    for key, value in content.items():
        if isinstance(value, dict):
            below.append(f"\n[{prefix}{_key(key)}]\n" + toml(value, f"{prefix}{_key(key)}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                below.append(f"\n[[{prefix}{_key(key)}]]\n" + toml(entry, f"{prefix}{_key(key)}."))
        elif value is not None:
            lines.append(f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines + below)


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
