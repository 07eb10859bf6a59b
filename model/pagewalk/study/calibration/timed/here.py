"""What this machine says of itself: its processor, whether it is a guest, its caches."""

import re
from pathlib import Path
from typing import NamedTuple

from pagewalk.hardware.detect import preset_of

NEAREST = {"AuthenticAMD": "amd-zen4-genoa", "GenuineIntel": "intel-sapphire-rapids"}
"""For other processors of these vendors. Ours."""

OTHERWISE = "arm-neoverse-v2"


class Here(NamedTuple):
    """A machine as its kernel shows it.

    Attributes
    ----------
    processor : str
        As the kernel names it.
    guest : bool
        The kernel sees a hypervisor.
    preset : str
        The preset that what cannot be measured is taken from.
    exact : bool
        That preset is of this processor, not merely of a relative.
    caches : dict
        Level of data or unified cache -> bytes, ways, line bytes, CPUs that share it.
    """

    processor: str
    guest: bool
    preset: str
    exact: bool
    caches: dict[int, tuple[int, int, int, int]]


def here(root: Path = Path("/")) -> Here:
    """Read /proc/cpuinfo and the cache folders of CPU 0 below `root`."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace").split("\n\n")[0]
    except OSError:
        text = ""
    found = dict(re.findall(r"^([^:\n]+?)\s*:\s*(.*)$", text, re.M))
    vendor = found.get("vendor_id", "")
    family, model = (found.get(key, "unknown") for key in ("cpu family", "model"))
    known = preset_of(found)
    name = f"{found.get('model name', 'unknown')} (family {family}, model {model})"
    return Here(
        name,
        "hypervisor" in found.get("flags", "").split(),
        known or NEAREST.get(vendor, OTHERWISE),
        bool(known),
        _caches(root / "sys/devices/system/cpu/cpu0/cache"),
    )


def _caches(folder: Path) -> dict[int, tuple[int, int, int, int]]:
    caches = {}
    for entry in sorted(folder.glob("index*")):
        try:
            said = {
                key: (entry / key).read_text().strip()
                for key in ("type", "level", "size", "ways_of_associativity", "coherency_line_size")
            }
            shared = (entry / "shared_cpu_list").read_text().strip()
            size = re.fullmatch(r"(\d+)([KM])", said["size"])
            if said["type"] != "Instruction" and size:
                size_bytes = int(size[1]) << (10 if size[2] == "K" else 20)
                ways, line = int(said["ways_of_associativity"]), int(said["coherency_line_size"])
                caches[int(said["level"])] = size_bytes, ways, line, _cpus(shared)
        except (OSError, ValueError):
            continue
    return caches


def _cpus(listed: str) -> int:
    """How many CPUs a list like 0-3,8 names."""
    count = 0
    for part in listed.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count
