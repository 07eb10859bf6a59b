"""Boot the guest under QEMU's translator, follow its console, and read its page tables when it asks.

The guest speaks in lines that begin with ``##`` on its serial line: BEGIN NAME and END NAME around the text
of a file to keep, SNAP NAME for a snapshot of the page tables (it waits for one line in answer), DONE.
"""

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from page_tables import Memory, kernel_leaves

QEMU = "qemu-system-x86_64"
CPU = "EPYC-Milan,erms=off,fsrm=off"
"""Without fast string instructions the kernel copies by plain moves, one record for each."""

COMMAND_LINE = (
    "console=ttyS0 nokaslr no_hash_pointers mitigations=off panic=-1 random.trust_cpu=on rdinit=/init"
)
"""Areas at their usual bases, real addresses in vmallocinfo, no retpolines that would add stack accesses."""


class Failed(Exception):
    """The recording did not come about; one line says why."""


@dataclass(frozen=True)
class Guest:
    """What to boot.

    Attributes
    ----------
    work : Path
        The folder that guest/make.sh filled.
    initrd : Path
    workload : str
        NAME:ARGUMENT:ARGUMENT
    append : str
        More of the kernel's command line.
    cpus, memory_gib : int
    records : int
        A window records no more than that.
    user : bool
        Record user-half addresses too.
    """

    work: Path
    initrd: Path
    workload: str
    append: str
    cpus: int
    memory_gib: int
    records: int
    user: bool

    @property
    def command_line(self) -> str:
        """Of the kernel."""
        return " ".join(f"{COMMAND_LINE} wl={self.workload} {self.append}".split())


def qemu_command(guest: Guest, capture: Path, shared: Path) -> list[str]:
    """The emulator's command line. Half of memory and CPUs are on each of two NUMA nodes.

    Two nodes, because the kernel then spreads its boot-time hash tables over them by vmalloc (hashdist).
    With one CPU, guest time is counted in instructions (-icount shift=0: 1 ns each), so that timer interrupts
    come at the rate of a machine that does 10**9 instructions a second, however slow the recording is. With
    several, QEMU 7.2 does not get past "Booting SMP configuration" that way, so guest time is the host's.
    """
    half_cpus = (guest.cpus + 1) // 2
    command = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-no-reboot"]
    command += ["-smp", str(guest.cpus), "-m", f"{guest.memory_gib}G", "-cpu", CPU]
    for node, cpus in enumerate((range(half_cpus), range(half_cpus, guest.cpus))):
        size = f"size={guest.memory_gib * 512}M"
        command += [
            "-object",
            f"memory-backend-file,id=m{node},{size},mem-path={shared}/{node},share=on,reserve=off",
        ]
        places = f",cpus={cpus[0]}-{cpus[-1]}" if cpus else ""
        command += ["-numa", f"node,nodeid={node},memdev=m{node}{places}"]
    command += [
        "-kernel",
        f"{guest.work}/vmlinuz",
        "-initrd",
        str(guest.initrd),
        "-append",
        guest.command_line,
    ]
    if (tree := guest.work / "tree.img").exists():
        command += ["-drive", f"file={tree},if=virtio,format=raw,snapshot=on"]
    command += ["-serial", f"unix:{shared}/serial,server=on,wait=on"]
    command += ["-qmp", f"unix:{shared}/qmp,server=on,wait=off"]
    command += ["-accel", "tcg,thread=single,tb-size=512"]
    if guest.cpus == 1:
        command += ["-icount", "shift=0,sleep=off"]
    plugin = f"{guest.work}/memtrace.so,out={capture}/window,max={guest.records}"
    return [*command, "-plugin", plugin + (",user=on" if guest.user else "")]


def record(guest: Guest, capture: Path, shared: Path, timeout_s: float) -> None:
    """Boot, let the workload run, and fill the folder `capture`.

    It gets ``window.0.bin`` and ``window.0.json`` (see memtrace.c), ``NAME-begin.leaves.npy`` and
    ``NAME-end.leaves.npy``, the files that the guest printed (``NAME-begin.vmallocinfo``, ...), ``qemu.json``
    and ``console.log``.

    Raises
    ------
    Failed
        QEMU ended early, the guest reported a failure, or the time ran out.
    """
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="kernel-trace-", dir=shared) as folder,
        contextlib.ExitStack() as stack,
    ):
        place = Path(folder)
        command = qemu_command(guest, capture, place)
        about = {"argv": command, "kernel_cmdline": guest.command_line}
        (capture / "qemu.json").write_text(json.dumps(about, indent=1))
        errors = stack.enter_context((capture / "qemu.stderr").open("w"))
        qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        stack.callback(_end, qemu)
        serial = stack.enter_context(_connected(place / "serial", qemu, errors.name))
        monitor = Monitor(stack.enter_context(_connected(place / "qmp", qemu, errors.name)))
        memory = Memory([place / "0", place / "1"])
        log = stack.enter_context((capture / "console.log").open("w"))
        kept = None
        for line in _lines(serial, qemu, started + timeout_s):
            log.write(f"[{time.monotonic() - started:8.2f}] {line}\n")
            log.flush()
            word, _, name = line.partition(" ")
            if word == "##BEGIN":
                kept = stack.enter_context((capture / Path(name).name).open("w"))
            elif word == "##END" and kept:
                kept.close()
                kept = None
            elif word == "##SNAP":
                np.save(capture / f"{Path(name).name}.leaves.npy", monitor.leaves(memory))
                serial.sendall(b"\n")
            elif word == "##FAIL":
                raise Failed(f"the guest says: {name} (see {log.name})")
            elif word == "##DONE":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    qemu.wait(30)
                return
            elif word.startswith("##"):
                print(f"[{time.monotonic() - started:6.1f} s] {line[2:]}", file=sys.stderr, flush=True)
            elif kept:
                kept.write(line + "\n")
        why = "QEMU ended early" if qemu.poll() is not None else f"not done after {timeout_s:.0f} s"
        raise Failed(f"{why} (see {log.name} and {errors.name})")


class Monitor:
    """QEMU's monitor (QMP)."""

    def __init__(self, connection: socket.socket) -> None:
        self._lines = connection.makefile("rw")
        self._lines.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: str) -> Any:
        """Do one command."""
        self._lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._lines.flush()
        while True:
            answer = json.loads(self._lines.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise Failed(f"QEMU refused {command}: {answer['error']}")

    def leaves(self, memory: Memory) -> np.ndarray:
        """The kernel's page tables, with the machine stopped while they are read."""
        self("stop")
        registers = self("human-monitor-command", **{"command-line": "info registers"})
        cr3 = re.search(r"CR3=([0-9a-f]+)", registers)
        assert cr3 is not None
        found = kernel_leaves(memory, int(cr3[1], 16) & 0x000F_FFFF_FFFF_F000)
        self("cont")
        return found


def _connected(path: Path, qemu: subprocess.Popen[bytes], errors: str) -> socket.socket:
    for _ in range(200):
        if qemu.poll() is not None:
            break
        connection = socket.socket(socket.AF_UNIX)
        with contextlib.suppress(OSError):
            connection.connect(str(path))
            return connection
        connection.close()
        time.sleep(0.1)
    raise Failed(f"QEMU did not start (see {errors})")


def _lines(serial: socket.socket, qemu: subprocess.Popen[bytes], until: float) -> Iterator[str]:
    """Lines of the console, until it closes or the time is over."""
    serial.settimeout(5)
    rest = b""
    while time.monotonic() < until:
        try:
            got = serial.recv(65536)
        except TimeoutError:
            if qemu.poll() is not None:
                return
            continue
        if not got:
            return
        *lines, rest = (rest + got).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").rstrip("\r")


def _end(qemu: subprocess.Popen[bytes]) -> None:
    if qemu.poll() is None:
        qemu.terminate()
        qemu.wait()
