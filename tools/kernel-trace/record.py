#!/usr/bin/env python3
"""Record the memory accesses of a Linux kernel: boot it in an emulator, run a workload, leave a trace folder.

    record.py fdtable:65536:50000 --out traces/fdtable
    record.py script --script my.sh --program ./my-program --out traces/mine --append nohugevmalloc

What the workloads are, what it takes and what such a trace is not: README.md beside this file.
"""

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import boot  # noqa: E402
import pack  # noqa: E402

from pagewalk.errors import BadInput  # noqa: E402

WORKLOADS = ("gitdiff", "coldfind", "fdtable", "udpflows", "bpfhash", "bpfarray", "zramswap", "script")
WITH_TREE = ("gitdiff", "coldfind")

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "gcc": "gcc libc6-dev",
    "busybox": "busybox-static",
    "modprobe": "kmod",
    "cpio": "cpio",
    "git": "git",
    "xtables-legacy-multi": "iptables",
    "mkfs.ext4": "e2fsprogs",
    "xz": "xz-utils",
}
"""Program that is needed -> Debian package that has it."""


def arguments() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("workload", metavar="WORKLOAD[:ARGUMENT[:ARGUMENT]]", help=", ".join(WORKLOADS))
    words.add_argument("--out", type=Path, required=True, help="trace folder to make")
    words.add_argument("--script", type=Path, help="for the workload script: run by the guest's sh")
    words.add_argument(
        "--program", type=Path, action="append", default=[], help="program that the script runs"
    )
    words.add_argument("--append", default="", help="more of the kernel's command line, e.g. nohugevmalloc")
    words.add_argument("--cpus", type=int, default=1)
    words.add_argument("--mem-gib", type=int, default=64, help="memory of the guest (default %(default)s)")
    words.add_argument("--records", type=int, default=100_000_000, help="at most (default %(default)s)")
    words.add_argument("--user", action="store_true", help="record user-half accesses too")
    words.add_argument(
        "--kernel", default="linux-image-amd64", help="package of the kernel (default %(default)s)"
    )
    words.add_argument("--work", type=Path, default=Path("kernel-trace-work"), help="keeps kernel and guest")
    words.add_argument("--shared", type=Path, default=Path("/dev/shm"), help="where the guest's memory is")
    words.add_argument("--timeout", type=float, default=1500, help="seconds (default %(default)s)")
    words.add_argument("--keep", type=Path, help="move the raw capture to this folder instead of removing it")
    found = words.parse_args()
    if found.workload.split(":")[0] not in WORKLOADS:
        words.error(f"no workload {found.workload}; there are {', '.join(WORKLOADS)}")
    if (found.workload == "script") != (found.script is not None):
        words.error("the workload script and --script FILE go together")
    for folder in (found.out, found.keep):
        if folder is not None and folder.exists():
            words.error(f"{folder} exists already")
    if not (1 <= found.cpus <= 255 and found.mem_gib >= 2 and found.records >= 1):
        words.error("1 to 255 CPUs, 2 GiB of memory and 1 record at least")
    return found


def check_programs() -> None:
    """Refuse to begin where something is missing."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    os.environ["PATH"] = path
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        raise boot.Failed(f"missing programs: apt-get install --no-install-recommends {' '.join(missing)}")


def guest_files(work: Path, kernel: str, tree: bool) -> None:
    """Fetch and build what the guest needs; work of an earlier call for the same kernel is kept."""
    work.mkdir(parents=True, exist_ok=True)
    made_for = work / "kernel-package"
    if made_for.exists() and made_for.read_text() != kernel:
        raise boot.Failed(f"{work} holds {made_for.read_text()}; name another folder with --work")
    made_for.write_text(kernel)
    make = [str(HERE / "guest" / "make.sh"), str(work), kernel, *(["tree"] if tree else [])]
    if subprocess.run(make, stdout=sys.stderr).returncode:
        raise boot.Failed("the guest could not be made; the lines above say why")


def with_script(work: Path, folder: Path, script: Path, programs: list[Path]) -> Path:
    """The guest's initramfs, followed by one that holds the script and its programs.

    Linux unpacks concatenated archives one after the other (Documentation/driver-api/early-userspace).
    """
    root = folder / "root"
    root.mkdir()
    shutil.copyfile(script, root / "script")
    if programs:
        subprocess.run([HERE / "guest" / "add-program.sh", root, *programs], check=True)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*"))) + "\n"
    pack_up = ["cpio", "-o", "-H", "newc", "--quiet"]
    archive = subprocess.run(pack_up, cwd=root, input=names.encode(), stdout=subprocess.PIPE, check=True)
    initrd = folder / "initrd.img"
    initrd.write_bytes((work / "initrd.img").read_bytes() + gzip.compress(archive.stdout))
    return initrd


def main() -> int:
    wanted = arguments()
    try:
        check_programs()
        work = wanted.work.absolute()
        guest_files(work, wanted.kernel, wanted.workload.split(":")[0] in WITH_TREE)
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".kernel-trace-", dir=wanted.out.parent) as folder:
            initrd = work / "initrd.img"
            if wanted.script:
                initrd = with_script(work, Path(folder), wanted.script, wanted.program)
            capture = Path(folder).absolute() / "capture"
            capture.mkdir()
            guest = boot.Guest(
                work,
                initrd.absolute(),
                wanted.workload,
                wanted.append,
                wanted.cpus,
                wanted.mem_gib,
                wanted.records,
                wanted.user,
            )
            try:
                boot.record(guest, capture, wanted.shared, wanted.timeout)
                if not (capture / "window.0.bin").exists():
                    raise boot.Failed(
                        "no window was opened; a script must call: wl begin script; ...; wl end script"
                    )
                pack.pack(capture, wanted.workload, wanted.out, wanted.user)
            except boot.Failed:
                log = capture / "console.log"
                if log.exists():
                    print(*log.read_text().splitlines()[-15:], sep="\n", file=sys.stderr)
                raise
            finally:
                if wanted.keep:
                    shutil.move(capture, wanted.keep)
    except (boot.Failed, BadInput, OSError, subprocess.CalledProcessError) as error:
        print(f"record.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{wanted.out}: next, pagewalk trace info {wanted.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
