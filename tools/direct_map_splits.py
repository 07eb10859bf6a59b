"""How many leaves of the direct map 512 programs split, by what each takes beside: docs/images/splits.png.

    python tools/direct_map_splits.py

The workload of reference M8 and M9: each instance makes three pages read-only and executable, on 8 GiB, under
Linux 5.17. What it takes beside them was not published, so it is the axis of the figure.
"""

from pathlib import Path

from matplotlib.figure import Figure

from pagewalk.linux.executable.bpf import LoadBpf
from pagewalk.linux.executable.instances import fill, start
from pagewalk.linux.memory.conditions import fresh
from pagewalk.linux.memory.kernel import Booted, Kernel
from pagewalk.linux.rules.eligibility import Kernel as Rules
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release
from pagewalk.report import style
from pagewalk.report.style import save

INSTANCES, IMAGES = 512, 3
RANGES = {0: [(0, 3 << 30), (4 << 30, 9 << 30)]}
PAGES = (5, 20, 40, 64, 90, 120, 150, 181, 210, 250)
MOVABLE_PAGES = 150
"""An instance's own memory; ours. It decides which 1 GiB leaves go, not how many of 2 MiB."""

MEASURED = {"full, after 2048": 0.54, "full, after 512": 0.42, "fresh, after 512 to 2048": 0.36}
"""Splits an instance, reference M8 and M9."""
FOOTPRINTS = {21: "one process", 64: "three processes"}
"""Unmovable pages, measured on 6.18 by tools/process_footprint.py; see docs/splits.md."""
CONDITIONS = {"fresh": (0, 6, -10), "1 MiB": (256, 7, -10), "512 KiB": (128, 5, -12), "256 KiB": (64, 4, 10)}
"""Memory, or in what runs full memory is reclaimed -> their pages; the point where the line is named."""


def splits(unmovable_pages: int, run_pages: int) -> int:
    """2 MiB leaves that the instances split on memory that is fresh (0), or full of page cache in runs."""
    rules = Rules(release("5.17"), hooks("x86-64"), nodes=1)
    kernel = Kernel(rules, fresh(RANGES), RANGES[0], cpus=2)
    kernel.apply(Booted())
    cache = fill(kernel.memory, run_pages, seed=1) if run_pages else None
    kernel.apply(LoadBpf(name="at boot", size=100))
    return start(
        kernel,
        range(INSTANCES),
        unmovable_pages=unmovable_pages,
        movable_pages=MOVABLE_PAGES,
        image_bytes=4096,
        images=IMAGES,
        cache=cache,
    )


def figure() -> Figure:
    """The splits of an instance against its footprint, what was measured as lines across."""
    courses = {
        name: [splits(pages, run) / INSTANCES for pages in PAGES] for name, (run, _, _) in CONDITIONS.items()
    }
    three = PAGES.index(max(FOOTPRINTS))
    fresh_memory, *full = (course[three] for course in courses.values())
    with style.drawing():
        drawn = style.canvas(
            f"With {max(FOOTPRINTS)} pinned pages a program splits {fresh_memory:.2f} leaves on fresh memory "
            f"(measured: 0.36), {min(full):.2f} to {max(full):.2f} on full memory (measured: 0.42 to 0.54)",
            f"{INSTANCES} programs with {IMAGES} read-only pages each, Linux 5.17, 8 GiB, modelled; "
            "measured by Aaron Lu in 2022 (their pinned pages unknown)",
            4.2,
        )
        axes = drawn.subplots()
        colours = style.hues(list(courses))
        for name, course in courses.items():
            axes.plot(PAGES, course, color=colours[name], linewidth=1.8)
            _, point, off = CONDITIONS[name]
            said = "fresh memory" if name == "fresh" else f"full, reclaimed in runs of {name}"
            axes.annotate(said, (PAGES[point], course[point]), (6, off), textcoords="offset points",
                          va="center", size=8, color=colours[name])  # fmt: skip
        axes.axhspan(min(MEASURED.values()), max(MEASURED.values()), color=style.RULE, alpha=0.45, zorder=0)
        for name, height in MEASURED.items():
            axes.axhline(height, color=style.QUIET, linewidth=0.8, linestyle=":")
            axes.annotate(f"measured: {name}", (PAGES[-1], height), (6, 0), textcoords="offset points",
                          va="center", size=8, color=style.QUIET)  # fmt: skip
        for pages, name in FOOTPRINTS.items():
            axes.axvline(pages, color=style.QUIET, linewidth=0.8)
            axes.annotate(name, (pages, 1.13), (4, 0), textcoords="offset points", size=8, color=style.QUIET)
        axes.set_xlim(0, PAGES[-1])
        axes.set_ylim(0, 1.2)
        axes.set_xlabel("unmovable pages that an instance takes beside its three read-only ones")
        axes.set_ylabel("2 MiB leaves split\nfor each instance")
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0, labelcolor=style.QUIET)
        axes.grid(axis="y", color=style.RULE, linewidth=0.4)
        axes.set_axisbelow(True)
    return drawn


if __name__ == "__main__":
    save(figure, Path(__file__).parent.parent / "docs" / "images" / "splits.png")
