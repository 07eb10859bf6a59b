"""Machine files that start from a preset (`extends = "intel-skylake-sp"`) and say only what differs.

* A plain key or a list replaces the preset's.
* A table (`[memory]`, `[walker]` ...) is merged key by key.
* An entry of `[[tlb]]`, `[[psc]]` or `[[cache]]` whose name the preset has is merged key by key into that
  one; any other is added behind.
* A figure that changes without a `source` in the same table counts as assumed. A `source` stands for the
  figures that change; the preset's stays for the others.
"""

from typing import Any

from pagewalk.hardware.machine import TABLES

NO_FIGURES = {"name", "schema", "source", "confidence", "assumed", "unknown", "perf_events", *TABLES}
"""Keys that need no source."""

SET_HERE = "set by the file that extends the preset"


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Put one table on top of another.

    Parameters
    ----------
    below : dict
        Of a preset: known to be well formed.
    above : dict
        Of anyone's file, as TOML gives it: types are checked later.
    """
    result = below | above
    for key in (below.keys() & above.keys()) - {"assumed"}:
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            result[key] = merged(below[key], above[key]) if key in TABLES else below[key] | above[key]
        elif key in TABLES and isinstance(below[key], list) and isinstance(above[key], list):
            result[key] = _by_name(below[key], above[key])
    changed = [key for key in above if key not in NO_FIGURES and result[key] != below.get(key)]
    assumed = {key: why for key, why in below.get("assumed", {}).items() if key not in changed}
    if "source" in above:
        result["confidence"] = above.get("confidence", "unverified")
        if below.get("source") and isinstance(above["source"], str):
            result["source"] = f"{above['source']}; else {below['source']}"
    else:
        assumed |= dict.fromkeys(changed, SET_HERE)
    given = above.get("assumed", {})
    result["assumed"] = assumed | given if isinstance(given, dict) else given
    return result


def _by_name(below: list[Any], above: list[Any]) -> list[Any]:
    result = list(below)
    places = {entry["name"]: place for place, entry in enumerate(below)}
    for entry in above:
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in places:
            result[places[name]] = merged(result[places[name]], entry)
        else:
            result.append(entry)
    return result
