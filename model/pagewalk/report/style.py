"""One look for all figures: colours, type, where the title stands, and how a figure becomes a file.

Two hues everywhere: base pages warm, PMD leaves cool; what is neither is grey. The pair is told apart by
people with any of the common colour-vision deficiencies and in grey print (the cool one is darker).
Figures are made without pyplot, so that no window system and no global state is touched.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pagewalk.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, RULE = "#1d1d1f", "#6b6b70", "#d9d9de"

_HUES = {"base": "#d9772b", "pmd": "#1f5f9e", "huge": "#1f5f9e"}
_GREY = "#77777c"

_OTHERS = ("#1f5f9e", "#2e8b57", "#8e4a9e", "#b8860b", "#c0392b", "#3b9fb0", "#77777c")
"""Of lines that are neither base nor huge; their names at the right end tell them apart in grey print."""

WIDTH = 9.6
"""Inches; every figure has the same, so that a page of them lines up."""

_RC = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 9,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.color": RULE,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "pagewalk",
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save in this style, whatever the user's own matplotlib settings are."""
    import matplotlib.style

    with matplotlib.style.context(["default", _RC]):
        yield


def save(draw: Callable[[], Figure], target: Path) -> Path:
    """Draw and save as the name's ending says (.png, .svg), whole or not at all.

    The same figure gives the same bytes, but only once: saving one twice would give others.
    """
    picture = io.BytesIO()
    kind = target.suffix.removeprefix(".")
    with drawing():
        draw().savefig(picture, format=kind, metadata={"Date" if kind == "svg" else "Software": None})
    write_whole(target, picture.getvalue())
    return target


def hue(mapping: str) -> str:
    """The colour of a mapping."""
    return _HUES.get(mapping, _GREY)


def hues(mappings: Sequence[str]) -> dict[str, str]:
    """A colour for each line of a figure: of its own for `base` and huge ones, the others in turn."""
    others = [mapping for mapping in dict.fromkeys(mappings) if mapping not in _HUES]
    if len(others) == 1:
        return {mapping: hue(mapping) for mapping in mappings}
    free = [colour for colour in _OTHERS if colour not in {_HUES.get(mapping) for mapping in mappings}]
    given = {mapping: free[place % len(free)] for place, mapping in enumerate(others)}
    return {mapping: given.get(mapping) or hue(mapping) for mapping in mappings}


def shades(mapping: str, count: int) -> list[str]:
    """`count` shades of a mapping's colour, light to dark: from near the core to far away."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(hue(mapping))
    steps = [0.28 + 0.72 * step / max(count - 1, 1) for step in range(count)]
    return [to_hex((1 - step * (1 - red), 1 - step * (1 - green), 1 - step * (1 - blue))) for step in steps]


def ink_on(colour: str) -> str:
    """Black or white, whichever reads better on `colour` (relative luminance of WCAG 2)."""
    from matplotlib.colors import to_rgb

    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < 0.25 else INK


def canvas(title: str, subtitle: str, height: float) -> Figure:
    """An empty figure with its message above the plot area.

    Parameters
    ----------
    title : str
        The message, computed from the data.
    subtitle : str
        What is shown, of which trace and machine.
    height : float
        Of the plot area, in inches.
    """
    from matplotlib.figure import Figure

    lines, small = _wrapped(title, 88), _wrapped(subtitle, 138)
    above = 0.34 + 0.24 * len(lines) + 0.18 * len(small)
    total = height + above
    figure = Figure(figsize=(WIDTH, total), dpi=150)
    figure.set_layout_engine("constrained", rect=(0.008, 0.0, 0.984, height / total), w_pad=0.08, h_pad=0.05)
    figure.text(
        0.015, 1 - 0.18 / total, "\n".join(lines), size=12.5, weight="bold", va="top", linespacing=1.35
    )
    below = 1 - (0.2 + 0.24 * len(lines)) / total
    figure.text(0.015, below, "\n".join(small), size=9, color=QUIET, va="top", linespacing=1.4)
    return figure


def bare(axes: Axes) -> None:
    """Leave only what carries meaning: no tick marks, no frame, a line where the costs start."""
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.axvline(0, color=INK, linewidth=0.8, zorder=3)


def _wrapped(text: str, width: int) -> list[str]:
    """Break a line between words, but never between a number and its percent sign."""
    return textwrap.wrap(text.replace(" %", "\u00a0%"), width)
