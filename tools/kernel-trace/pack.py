"""From a capture to a trace folder: records, events, page tables and regions."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pagewalk.trace.encode import RawChunk
from pagewalk.trace.readers.binary import read_capture
from pagewalk.trace.store.write import write_stream
from pagewalk.trace.trace import CHUNK

KINDS = ("vmalloc", "vmap", "ioremap", "user", "dma-coherent")
"""What /proc/vmallocinfo calls an area (Linux mm/vmalloc.c, vmalloc_info_show)."""

UNPURGED = "unpurged vm_area"
"""What stands in the caller's place for an area that was freed but may still be in some TLB."""

STACKS = ("kernel_clone+", "dup_task_struct+", "fork_idle+", "irq_init_percpu_irqstack+")
"""Callers that allocate kernel and interrupt stacks."""


def areas(vmallocinfo: str) -> dict[int, dict[str, Any]]:
    """The areas of /proc/vmallocinfo, by start."""
    found = {}
    for line in vmallocinfo.splitlines():
        fields = line.split()
        if len(fields) < 2 or not re.fullmatch(r"0x[0-9a-f]+-0x[0-9a-f]+", fields[0]):
            continue
        start, end = (int(bound, 16) for bound in fields[0].split("-"))
        words = fields[2:]
        caller = words[0] if words and "+0x" in words[0] else " ".join(words[:2])
        found[start] = {
            "start": hex(start),
            "end": hex(end),
            "bytes": end - start,
            "caller": caller,
            "module": next((word[1:-1] for word in words if word.startswith("[")), None),
            "kind": next((word for word in words if word in KINDS), None),
            "pages": next((int(word[6:]) for word in words if word.startswith("pages=")), None),
            "nodes": {node: int(pages) for node, pages in re.findall(r"\b(N\d+)=(\d+)", line)},
            "is_stack": caller.startswith(STACKS),
        }
    return found


def leaf_counts(leaves: NDArray[np.void], start: int, end: int) -> dict[int, int]:
    """How many leaves of each shift lie within [start, end)."""
    shift = leaves["shift"].astype(np.uint64)
    low = np.maximum(leaves["va"], np.uint64(start))
    high = np.minimum(leaves["va"] + (leaves["count"].astype(np.uint64) << shift), np.uint64(end))
    inside = np.where(high > low, high - low, np.uint64(0)) >> shift
    return {size: int(inside[leaves["shift"] == size].sum()) for size in (12, 21)}


def regions(capture: Path, name: str) -> list[dict[str, Any]]:
    """Every area of the beginning, and those that came until the end, with how it was mapped."""
    moments = {}
    for moment in ("begin", "end"):
        listed = areas((capture / f"{name}-{moment}.vmallocinfo").read_text())
        moments[moment] = listed, np.load(capture / f"{name}-{moment}.leaves.npy")
    end = moments["end"][0]
    freed = {start for start, area in moments["begin"][0].items() if area["caller"] == UNPURGED}
    begin = {
        start: area for start, area in moments["begin"][0].items() if not (start in freed and start in end)
    }
    found = []
    for start in sorted(begin | end):
        listed, leaves = moments["begin" if start in begin else "end"]
        area = dict(listed[start], at_begin=start in begin, at_end=start in end)
        counts = leaf_counts(leaves, start, int(area["end"], 16))
        area |= {"leaf_4k": counts[12], "leaf_2m": counts[21]}
        area["mapping"] = "2M" if counts[21] else "4K" if counts[12] else "none"
        found.append(area)
    return found


def about(capture: Path, workload: str, user: bool) -> dict[str, Any]:
    """What to know about the recording, without the paths of the machine that made it."""
    qemu = json.loads((capture / "qemu.json").read_text())
    boot = (capture / "boot.dmesg").read_text().splitlines()
    return {
        "workload": workload,
        "user_half_included": user,
        "plugin_counters_whole_window": json.loads((capture / "window.0.json").read_text()),
        "kernel": (capture / "version").read_text().split("(")[0].strip(),
        "kernel_cmdline": qemu["kernel_cmdline"],
        "qemu_args": [re.sub(r"(^|=|unix:)/[^, ]*/", r"\1", word) for word in qemu["argv"]],
        "hash_tables": [
            re.sub(r"^\[ *[0-9.]*\] ", "", line) for line in boot if "hash table entries" in line
        ],
    }


def pack(capture: Path, workload: str, target: Path, user: bool) -> None:
    """Write the capture of a workload as a new trace folder.

    Raises
    ------
    BadInput
        The window is damaged, or `target` exists or cannot be written.
    """
    name = workload.split(":")[0]
    beside = {
        "regions.json": json.dumps(regions(capture, name), indent=0).encode(),
        "leaf.npy": (capture / f"{name}-begin.leaves.npy").read_bytes(),
        "leaf_end.npy": (capture / f"{name}-end.leaves.npy").read_bytes(),
        "meminfo.txt": (capture / f"{name}-begin.meminfo").read_bytes(),
        "buddyinfo.txt": (capture / f"{name}-begin.buddyinfo").read_bytes(),
    }
    chunks = read_capture(capture / "window.0.bin").read(CHUNK)
    if user:
        chunks = map(with_spaces, chunks)
    source = f"tools/kernel-trace, {workload}"
    write_stream(chunks, target, source=source, about=about(capture, workload, user), beside=beside)


def with_spaces(chunk: RawChunk) -> RawChunk:
    """Give user-half accesses an address space of their own.

    Which process it was is not recorded; one number does for all, since the guest has no PCID: it drops the
    user half's entries whenever it changes the address space, and that is an event of the trace.
    """
    return chunk._replace(space=(chunk.address >> np.uint64(63) == 0).astype(np.uint16))
