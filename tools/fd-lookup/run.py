"""Set random look-ups in a huge descriptor table of this kernel beside what the model says of them.

    python tools/fd-lookup/run.py MACHINE [CLOCK_GHZ]

MACHINE is a preset or a file of `pagewalk calibrate`; needs cc. A kernel whose table lies in 4K pages pays
for TLB misses from a few dozen touched pages on, one that maps it with 2M leaves only where the table is
larger than the TLB's reach of those: the measured line follows one of the two predicted ones. What a system
call costs by itself is taken from the first row. Opening enough descriptors for 8 MiB of table takes root, or
a hard limit (ulimit -Hn) of 1,048,576; with less, the table is as large as allowed, and may be too small.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from pagewalk.hardware.load import load
from pagewalk.study.validation.case import Chase
from pagewalk.study.validation.predict import predict

SOURCE = Path(__file__).parent / "fd_lookup.c"
LARGEST_BYTES = 8 << 20
COUNTS = (1, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)


def main(name: str, clock_ghz: float) -> None:
    machine = load(name)
    clock_ghz = clock_ghz or machine.clock_ghz
    table_bytes, found = measured()
    print(f"Descriptor table of {table_bytes >> 10} KiB; added nanoseconds a look-up, over the first row.")
    print(f"{'pages':>6} {'measured':>9} {'4K':>9} {'2M':>9}   predicted for {machine.id}, {clock_ghz:g} GHz")
    first = dict.fromkeys(("4K", "2M"), 0.0)
    for count, nanoseconds in found:
        said = {leaf: predict(Chase(pages=count, leaf=leaf), machine).figures["cycles"] for leaf in first}
        if count == found[0][0]:
            first = said
        added = [(said[leaf] - first[leaf]) / clock_ghz for leaf in first]
        print(f"{count:6} {nanoseconds - found[0][1]:9.1f} {added[0]:9.1f} {added[1]:9.1f}")
    print(f"A call on one descriptor takes {found[0][1]:.1f} ns.")
    reach = max(t.entries for t in machine.tlb if t.level == 1 and "load" in t.serves)
    if found[-1][0] <= reach:
        print(f"{found[-1][0]} pages fit the first TLB level ({reach}): this table is too small to tell.")


def measured() -> tuple[int, list[tuple[int, float]]]:
    """Table size in bytes, and nanoseconds a call for each number of touched pages."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "fd_lookup"
        subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
        for table_bytes in (LARGEST_BYTES, allowed * 8 // 4096 * 4096):
            counts = [str(count) for count in COUNTS if count * 4096 <= table_bytes]
            done = subprocess.run([program, str(table_bytes), *counts], capture_output=True, text=True)
            if done.returncode == 0:
                rows = (line.split() for line in done.stdout.splitlines())
                return table_bytes, [(int(count), float(nanoseconds)) for count, nanoseconds in rows]
    sys.exit(done.stderr)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) == 3 else 0.0)
