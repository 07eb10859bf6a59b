"""Traces that come with the package; made by tools/make_sample.py."""

from pathlib import Path

from pagewalk.errors import BadInput


def sample_path(name: str = "gitdiff") -> Path:
    """The folder of a packaged trace.

    Raises
    ------
    BadInput
        If there is none of that name.
    """
    known = {meta.parent.name: meta.parent for meta in Path(__file__).parent.glob("*/meta.json")}
    if name not in known:
        raise BadInput(f"sample:{name}", "no such sample", f"there are: {', '.join(sorted(known))}")
    return known[name]
