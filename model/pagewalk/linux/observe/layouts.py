"""A layout from whatever file of a running kernel carries addresses."""

import re
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import Geometry
from pagewalk.linux.layout import Layout
from pagewalk.linux.observe import events, page_tables, vmallocinfo
from pagewalk.linux.observe.lines import read_lines
from pagewalk.linux.observe.which import geometry_of
from pagewalk.linux.rules.releases import Release

LINES_LOOKED_AT = 10_000
"""A trace may begin with many events that are not ours."""


def read_observed_layout(path: Path, kernel: Release | None, geometry: Geometry | None = None) -> Layout:
    """Read a vmallocinfo, a text trace with vmalloc events or a page-table dump, told by its lines.

    Parameters
    ----------
    path : Path
    kernel : Release, optional
        That was observed; a vmallocinfo tells huge areas by who asked for them in it.
    geometry : Geometry, optional
        Of its page tables; told by the addresses (`geometry_of`) unless given.

    Raises
    ------
    BadInput
        The file is none of these, or cannot be used.
    """
    geometry = geometry or geometry_of(path)
    for number, line in read_lines(path):
        if line.startswith("---["):
            return page_tables.read_page_tables(path, geometry)
        if re.match(r"0x[0-9a-f]+-0x[0-9a-f]+ +[0-9]+( |$)", line):
            if kernel is None:
                mend = "name it: --kernel 6.12"
                raise BadInput(path, "which areas are huge depends on the kernel's release", mend)
            return vmallocinfo.to_layout(vmallocinfo.read_vmallocinfo(path), geometry, kernel)
        if re.search(r": +(vmalloc:)?(alloc|free|purge)_vmap_area", line):
            return events.to_layout(events.read_events(path), geometry, str(path))
        if number == LINES_LOOKED_AT:
            break
    what = "neither /proc/vmallocinfo, vmalloc trace events nor a page-table dump"
    raise BadInput(path, what, "docs/kernels.md tells how to save each")
