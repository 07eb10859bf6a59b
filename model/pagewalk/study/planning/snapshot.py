"""One machine as its own files describe it: of ``/proc`` now, or saved from it.

Every file but one may be missing; what is then assumed is said.
"""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from pagewalk.errors import BadInput
from pagewalk.hardware.detect import preset_of
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.observe.boot_log import BootLog, LoggedTable, read_boot_log
from pagewalk.linux.observe.events import Event, read_events
from pagewalk.linux.observe.lines import read_lines
from pagewalk.linux.observe.memory import Zone, read_buddyinfo, read_meminfo, read_vmstat
from pagewalk.linux.observe.vmallocinfo import Vmallocinfo, read_vmallocinfo
from pagewalk.linux.rules.eligibility import Kernel
from pagewalk.linux.rules.hooks import hooks
from pagewalk.linux.rules.releases import release

PROC = Path("/proc")

DEFAULT_MACHINE = {
    "x86-64": "intel-sapphire-rapids",
    "arm64": "arm-neoverse-v2",
    "powerpc64": "ibm-power10",
    "riscv": "riscv-sifive-p550",
}
"""Processor taken where none is told, by the beginning of the geometry's name. Our choice."""


@dataclass(frozen=True)
class Files:
    """Where the files of a machine are; None: not at hand."""

    vmallocinfo: Path | None = None
    meminfo: Path | None = None
    buddyinfo: Path | None = None
    vmstat: Path | None = None
    dmesg: Path | None = None
    events: Path | None = None
    cpuinfo: Path | None = None
    version: Path | None = None
    cmdline: Path | None = None


@dataclass(frozen=True)
class Snapshot:
    """A machine.

    Attributes
    ----------
    name : str
    kernel : Kernel
        Release, architecture, nodes with memory, boot parameters.
    processor : str
        A preset.
    cpus : int
        CPUs that are online; 0: not known.
    areas : Vmallocinfo, optional
    meminfo, vmstat : dict of str to int
        Empty where they are not at hand.
    buddy : dict
        Zone -> free blocks of each order; may be empty.
    tables : tuple of LoggedTable
        Boot hash tables as logged; may be empty.
    events : tuple of Event
    notes : tuple of str
        What was assumed, and what is not known for want of a file.
    """

    name: str
    kernel: Kernel
    processor: str
    cpus: int = 0
    areas: Vmallocinfo | None = None
    meminfo: dict[str, int] | None = None
    buddy: dict[Zone, tuple[int, ...]] | None = None
    vmstat: dict[str, int] | None = None
    tables: tuple[LoggedTable, ...] = ()
    events: tuple[Event, ...] = ()
    notes: tuple[str, ...] = ()


def files_of(folder: Path) -> Files:
    """The files of a machine in a folder: each named as in ``/proc`` (or dmesg, events), with any ending.

    Raises
    ------
    BadInput
        There is none, or two of one kind.
    """
    try:
        present = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise BadInput(folder, error.strerror or "cannot be read", "name a folder of saved files") from error
    found: dict[str, Path] = {}
    for path in present:
        kind = re.split(r"[^a-z]", path.name)[0]
        if kind in Files.__dataclass_fields__:
            if kind in found:
                raise BadInput(path, f"{found[kind].name} is {kind} too", "leave one of them")
            found[kind] = path
    if not found.keys() & {"vmallocinfo", "meminfo"}:
        kinds = ", ".join(field.name for field in fields(Files))
        raise BadInput(folder, "no vmallocinfo or meminfo in it", f"save files of these names there: {kinds}")
    return Files(**found)


def take(
    files: Files, *, name: str = "", kernel: str = "", processor: str = "", guess_kernel: bool = False
) -> Snapshot:
    """Read a machine's files.

    Parameters
    ----------
    files : Files
    name : str
        Of the machine, for people.
    kernel : str
        Its release; overrides what the files say.
    processor : str
        Preset or machine file; overrides what the files say.
    guess_kernel : bool
        Take the running kernel's release where no file tells one.

    Raises
    ------
    BadInput
        A file is damaged, or no release is known.
    """
    notes: list[str] = []
    info = read_vmallocinfo(files.vmallocinfo) if files.vmallocinfo else None
    meminfo = read_meminfo(files.meminfo) if files.meminfo else {}
    buddy = read_buddyinfo(files.buddyinfo) if files.buddyinfo else {}
    vmstat = read_vmstat(files.vmstat) if files.vmstat else {}
    events = tuple(read_events(files.events)) if files.events else ()
    log = read_boot_log(files.dmesg) if files.dmesg else BootLog(None, (), ())
    cpu = _cpu(files.cpuinfo) if files.cpuinfo else {}
    found = _release(kernel, files.version, log, guess_kernel)
    cut = _geometry(cpu, meminfo, notes)
    nodes = _nodes(buddy, info, notes)
    parameters = _first_line(files.cmdline).split() if files.cmdline else log.parameters
    if not (files.cmdline or log.parameters):
        notes.append("boot parameters are not known: taken to be none")
    for kind, what in (
        ("vmallocinfo", "areas"),
        ("meminfo", "memory and direct map"),
        ("buddyinfo", "free blocks"),
        ("vmstat", "splits and compaction since boot"),
    ):
        if getattr(files, kind) is None:
            notes.append(f"{what}: not known, {kind} is not at hand")
    return Snapshot(
        name,
        Kernel(
            release(found),
            hooks(cut),
            nodes,
            meminfo.get("MemTotal", 0),
            frozenset(parameters),
        ),
        processor or _processor(cpu, cut, notes),
        int(cpu.get("cpus", 0)),
        info,
        meminfo,
        buddy,
        vmstat,
        log.tables,
        events,
        tuple(notes),
    )


def running(*, kernel: str = "", processor: str = "") -> Snapshot:
    """The machine that this runs on. Files that this user may not read are left out, and that is said."""
    found, unread = {}, []
    for kind in ("vmallocinfo", "meminfo", "buddyinfo", "vmstat", "cpuinfo", "version", "cmdline"):
        path = PROC / kind
        try:
            with path.open("rb") as file:
                file.read(1)
            found[kind] = path
        except OSError:
            unread.append(str(path))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as saved:
        log = _dmesg()
        if "hash table entries" in log:
            saved.write(log)
            saved.flush()
            found["dmesg"] = Path(saved.name)
        taken = take(
            Files(**found), name=os.uname().nodename, kernel=kernel, processor=processor, guess_kernel=True
        )
    notes = [f"{path} could not be read: run this as root" for path in unread]
    return Snapshot(**{**vars(taken), "notes": (*taken.notes, *notes)})


def _dmesg() -> str:
    try:
        return subprocess.run(["dmesg"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def _first_line(path: Path) -> str:
    return next((line for _, line in read_lines(path)), "")


def _release(named: str, version: Path | None, log: BootLog, guess: bool) -> str:
    if named:
        return named
    if version:
        return _first_line(version)
    if log.release:
        return log.release.name
    if guess:
        return os.uname().release
    raise BadInput("--kernel", "no file tells the kernel's release", "name it: --kernel 6.12")


def _cpu(path: Path) -> dict[str, str]:
    """The first CPU's fields of ``/proc/cpuinfo``, and "cpus": how many there are."""
    found: dict[str, str] = {}
    count = 0
    for _, line in read_lines(path):
        key, colon, value = line.partition(":")
        count += bool(colon) and key.strip() == "processor"
        if colon:
            found.setdefault(key.strip(), value.strip())
    if not found:
        raise BadInput(path, "no CPU in it", "save /proc/cpuinfo")
    return {**found, "cpus": str(count)}


def _geometry(cpu: dict[str, str], meminfo: dict[str, int], notes: list[str]) -> str:
    """Architecture by cpuinfo, mode by VmallocTotal."""
    family = "x86-64"
    for key, name in (("CPU implementer", "arm64"), ("cpu", "powerpc64"), ("mmu", "riscv")):
        if key in cpu and "vendor_id" not in cpu:
            family = name
    if not cpu:
        notes.append("architecture: taken to be x86-64, cpuinfo is not at hand")
    total = meminfo.get("VmallocTotal", 0)
    named = [cut for cut in GEOMETRIES.values() if cut.name.startswith(family)]
    for cut in named:
        if abs(cut.vmalloc_end - cut.vmalloc_start - total) <= 1024:
            return cut.name
    notes.append(f"page-table geometry: taken to be {named[0].name}; VmallocTotal fits none that we know")
    return named[0].name


def _nodes(buddy: dict[Zone, tuple[int, ...]], info: Vmallocinfo | None, notes: list[str]) -> int:
    nodes = {node for (node, _), _ in buddy.items()}
    if not nodes and info:
        nodes = {node for row in info.rows for node, _ in row.nodes}
    if not nodes:
        notes.append("NUMA nodes: taken to be one, neither buddyinfo nor vmallocinfo tells")
    return len(nodes) or 1


def _processor(cpu: dict[str, str], cut: str, notes: list[str]) -> str:
    if "hypervisor" in cpu.get("flags", "").split():
        notes.append(
            "this is a guest: its walks are two-dimensional, and cost more than said here for bare metal"
        )
    if preset := preset_of(cpu):
        notes.append(f"processor: {preset}, by family {cpu['cpu family']} model {cpu['model']}")
        return preset
    chosen = next(preset for name, preset in DEFAULT_MACHINE.items() if cut.startswith(name))
    known = cpu.get("model name") or "one that no file tells"
    notes.append(f"processor: {known}; {chosen} stands in (our choice), --machine names another")
    return chosen
