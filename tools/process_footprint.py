"""Measure what memory a process pins: kernel stacks, page tables, slabs, and how far the tables lie apart.

    python tools/process_footprint.py [INSTANCES]

An instance is a shell that starts two sleeping programs and waits, three processes of the smallest kind. The
figures are differences of /proc before and while the instances live, so they want an otherwise quiet machine.
Which pageblocks their page tables lie in is read from /proc/kpageflags, as root. See docs/splits.md.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

INSTANCE = ["sh", "-c", "sleep 30 & sleep 30 & wait"]
TABLE_FLAG = np.uint64(1 << 26)
"""KPF_PGTABLE, include/uapi/linux/kernel-page-flags.h."""
BLOCK_LOG2 = 9
"""Pages of a pageblock, and of a 2 MiB leaf."""


def pinned_pages() -> dict[str, float]:
    """Unmovable memory of the machine, in pages of 4 KiB."""
    info = dict(re.findall(r"^(\w+):\s+(\d+)", Path("/proc/meminfo").read_text(), re.M))
    names = {"stacks": "KernelStack", "tables": "PageTables", "slabs": "SUnreclaim"}
    return {name: int(info[line]) / 4 for name, line in names.items()}


def table_frames() -> NDArray[np.int64]:
    """Frames of page tables, of processes and of the kernel; none where the file cannot be read."""
    parts, at = [], 0
    try:
        flags = os.open("/proc/kpageflags", os.O_RDONLY)
    except OSError:
        return np.zeros(0, np.int64)
    try:
        while part := os.pread(flags, 1 << 20, at):
            parts.append(np.frombuffer(part, np.uint64))
            at += len(part)
    except OSError:
        pass  # Past the last frame.
    finally:
        os.close(flags)
    return np.flatnonzero(np.concatenate([np.zeros(0, np.uint64), *parts]) & TABLE_FLAG)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    pinned, tables = pinned_pages(), table_frames()
    running = [subprocess.Popen(INSTANCE, start_new_session=True) for _ in range(count)]
    try:
        time.sleep(1.5)
        each = {name: (pages - pinned[name]) / count for name, pages in pinned_pages().items()}
        frames = np.setdiff1d(table_frames(), tables)
    finally:
        for process in running:
            os.killpg(process.pid, 15)
            process.wait()
    parts = ", ".join(f"{name} {pages:.1f}" for name, pages in each.items())
    print(f"{count} instances of 3 processes; pages of each: {parts}, together {sum(each.values()):.1f}")
    if len(frames):
        chosen = np.random.default_rng(1).choice(frames, min(3 * count, len(frames)), replace=False)
        blocks, had = np.unique(chosen >> BLOCK_LOG2), np.unique(tables >> BLOCK_LOG2)
        new = len(np.setdiff1d(blocks, had))
        print(
            f"3 table pages of each lie in {len(blocks)} pageblocks, {len(blocks) / count:.2f} an instance; "
            f"{new} of these held no table before"
        )


if __name__ == "__main__":
    main()
