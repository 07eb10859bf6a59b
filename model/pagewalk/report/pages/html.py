"""How a page is put together: its templates, numbers as cells, and figures as part of the page.

Jinja and matplotlib are imported when they are used.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pagewalk import __version__
from pagewalk.report import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEMED = {
    style.INK: "var(--ink)",
    style.QUIET: "var(--quiet)",
    style.RULE: "var(--rule)",
    style.hue("base"): "var(--base)",
    style.hue("pmd"): "var(--pmd)",
    "#ffffff": "var(--paper)",
}
"""Colours of a figure that follow the page's light or dark theme."""


class Cell(NamedTuple):
    """A number as text, and as a bar: its share of the longest one."""

    text: str
    share: float = 0.0
    kind: str = ""
    """Name of the mapping, which gives the colour."""


class Picture(NamedTuple):
    """A figure as SVG, twice: for a wide page and for a narrow one."""

    wide: str
    narrow: str


def render(template: str, **content: object) -> str:
    """Fill a template; everything is escaped, except what `picture` made."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pagewalk.report.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **content)


def _unbroken(value: object) -> object:
    """Never break a line between a number and its percent sign."""
    return value.replace(" %", "\u00a0%") if isinstance(value, str) else value


def bars(values: Sequence[float], texts: Sequence[str], kinds: Sequence[str]) -> list[Cell]:
    """Cells whose bars share one scale."""
    longest = max(values, default=0.0) or 1.0
    return [
        Cell(text, round(100 * value / longest, 2), kind)
        for value, text, kind in zip(values, texts, kinds, strict=True)
    ]


def picture(draw: Callable[[], Figure], name: str, alt: str) -> Picture:
    """Draw a figure twice, without its title and subtitle: the page says those in its own type.

    Parameters
    ----------
    draw : callable
        Returns a new figure each time; saving one twice would give other bytes.
    name : str
        Unique on the page: identifiers in the SVG begin with it.
    alt : str
        What it shows, for those who do not see it.
    """
    return Picture(*(_svg(draw(), width, f"{name}-{width}", alt) for width in ("wide", "narrow")))


NARROW_INCHES = 4.6
"""Shown on 340 pixels, type of 9 points is then 9 pixels high."""


def _svg(figure: Figure, width: str, name: str, alt: str) -> str:
    for text in list(figure.texts):
        text.remove()
    if width == "narrow":
        figure.set_size_inches(NARROW_INCHES, figure.get_figheight())
    file = io.StringIO()
    with style.drawing():
        figure.savefig(file, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.02)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', drawn)
    assert box
    drawn = drawn[drawn.index(">") + 1 :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", drawn)
    for colour, variable in THEMED.items():
        drawn = drawn.replace(colour, variable)
    drawn = re.sub(r"(<text[^>]*)var\(--base\)", r"\1var(--base-ink)", drawn)
    label = alt.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f'<svg class="{width}" viewBox="{box[1]}" role="img" aria-label="{label}">{drawn}'
