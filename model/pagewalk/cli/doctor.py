"""doctor: what is installed, what is compiled, what this machine can measure."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from pagewalk import __version__
from pagewalk.cli.listing import listing
from pagewalk.cli.usage import examples
from pagewalk.errors import BadInput


def _found(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    from pagewalk.study.calibration.timed.here import here

    found = here()
    mine = found.preset if found.exact else "no preset; pagewalk calibrate measures it"
    return f"{found.processor}{', in a guest' if found.guest else ''}: {mine}"


def _perf() -> str:
    path = Path("/proc/sys/kernel/perf_event_paranoid")
    if not path.exists():
        return "no perf events in this kernel"
    level = path.read_text().strip()
    core = any(Path("/sys/bus/event_source/devices").glob("cpu*"))
    counters = "a core PMU is present" if core else "no core PMU is visible (often so in a guest)"
    return f"perf_event_paranoid is {level}; {counters}"


def _huge() -> str:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return path.read_text().strip() if path.exists() else "not in this kernel"


def _gpu() -> str:
    from pagewalk.replay.together.gpu import find_gpu

    try:
        found = find_gpu().device
    except BadInput as error:
        return f"{error.what}; {error.mend}"
    return f"{found.name}, {found.processors} multiprocessors, {found.free_bytes / 2**30:.1f} GiB free"


@click.command(epilog=examples("pagewalk doctor", "pagewalk doctor --warm"))
@click.option("--warm", is_flag=True, help="Compile every kernel now, so that no later command has to.")
def doctor(warm: bool) -> None:
    """Tell versions, the cache of compiled kernels, and what this machine can measure."""
    import time

    began = time.perf_counter()
    from pagewalk.kernels import _jit

    loaded = time.perf_counter() - began
    rows = [
        ("pagewalk", __version__),
        ("python", f"{platform.python_version()} ({sys.implementation.name})"),
        *((name, _found(name)) for name in ("numpy", "numba", "llvmlite", "matplotlib", "zstandard", "asv")),
        ("processor", _processor()),
        ("CPUs", f"{len(os.sched_getaffinity(0))} usable, {platform.machine()}"),
        ("kernel", platform.release()),
        ("numba loads in", f"{loaded:.2f} s"),
        ("compiled kernels", f"{_jit.CACHE} ({'warm' if _jit.WARM else 'empty: the first run compiles'})"),
        ("counters", _perf()),
        ("huge pages", _huge()),
        ("GPU", _gpu()),
    ]
    if warm:
        from pagewalk.replay.engine import warm_up

        began = time.perf_counter()
        warm_up()
        rows.append(("compiled in", f"{time.perf_counter() - began:.1f} s"))
    listing(rows)
