"""What each architecture allows vmalloc, vmap and ioremap to map.

Source of every row: Linux arch/*/include/asm/vmalloc.h and Kconfig of 6.1, 6.12, 7.3; see the
reference's sections 3.3 and 6. None makes PUD leaves for vmalloc.
"""

from dataclasses import dataclass

from pagewalk.errors import BadInput
from pagewalk.linux.geometry import GEOMETRIES
from pagewalk.linux.rules.releases import Mark, Release, release


@dataclass(frozen=True)
class Hooks:
    """Leaf sizes that an architecture's hooks allow.

    Attributes
    ----------
    name : str
        Name of the page-table geometry where we have one.
    base_shift : int
        log2 of the base page in bytes.
    pmd_shift, pud_shift : int
        log2 of those leaves; 0 where the hook says no. PUD is for ioremap only.
    pte_shifts : tuple of int
        log2 of PTE-level blocks, ascending.
    ioremap_shift : int
        IOREMAP_MAX_ORDER: ioremap areas are aligned to the next power of two of their size, at most to this.
    huge_since : str
        First release that selects HAVE_ARCH_HUGE_VMALLOC; "" is never.
    pte_since : str
        First release with the PTE-level hook.
    source : str
    mark : str
    """

    name: str
    base_shift: int
    pmd_shift: int
    pud_shift: int
    pte_shifts: tuple[int, ...]
    ioremap_shift: int
    huge_since: str
    pte_since: str
    source: str
    mark: Mark

    def huge_in(self, release_: Release) -> bool:
        """Whether a release has huge vmalloc on this architecture."""
        return bool(self.huge_since) and release(self.huge_since) <= release_

    def pte_hook_in(self, release_: Release) -> bool:
        """Whether a release offers PTE-level blocks on this architecture."""
        return bool(self.pte_since) and release(self.pte_since) <= release_

    def pte_shift(self, size_bytes: int, release_: Release) -> int:
        """The largest PTE-level block not larger than a size (arch_vmap_pte_supported_shift)."""
        if not self.pte_hook_in(release_):
            return self.base_shift
        return max((s for s in self.pte_shifts if size_bytes >= 1 << s), default=self.base_shift)


_FAMILIES: tuple[tuple[str, str, str, str, Mark], ...] = (
    # name starts with, huge since, PTE-level hook since, source, mark
    ("x86-64", "5.18", "", "fac54e2bfb5b (5.18-rc1); PMD needs PSE, PUD needs GBPAGES", "src"),
    (
        "arm64",
        "6.1",
        "6.16",
        "20220907114950.125433-1-wangkefeng.wang@huawei.com (6.1); contPTE series of May 2025, "
        "6.16 inferred from apply dates",
        "mail",
    ),
    ("powerpc64-radix", "v8", "", "8abddd968a30 (5.13) and patch 12 of v8", "mail"),
    ("riscv", "6.2", "", "be79afc740b5 (6.2)", "mail"),
)


def _from_geometries() -> list[Hooks]:
    rows = []
    for prefix, huge_since, pte_since, source, mark in _FAMILIES:
        for geometry in GEOMETRIES.values():
            if not geometry.name.startswith(prefix):
                continue
            shift = {leaf.name: leaf.shift for leaf in geometry.leaves}
            pud = 0 if geometry.name == "riscv-sv39" else shift.get("PUD", 0)
            rows.append(
                Hooks(
                    geometry.name,
                    shift["base"],
                    shift["PMD"],
                    pud,
                    (shift["contPTE"],) if "contPTE" in shift else (),
                    shift.get("PUD", shift["PMD"]),
                    huge_since,
                    pte_since,
                    source,
                    mark,
                )
            )
    return rows


_8XX = "a6a8f7c4aa7e, Christophe Leroy's series of May 2021; 5.14 from memory"
_NEVER = "6.1, 6.12, 7.2, 7.3 Kconfig: selects neither HUGE_VMAP nor HUGE_VMALLOC"

ARCHES: dict[str, Hooks] = {
    row.name: row
    for row in (
        *_from_geometries(),
        Hooks("powerpc-8xx-4k", 12, 0, 0, (14, 19), 19, "5.14", "5.14", _8XX, "recall"),
        Hooks("powerpc-8xx-16k", 14, 0, 0, (19,), 21, "5.14", "5.14", _8XX, "recall"),
        Hooks("powerpc64-hash-64k", 16, 0, 0, (), 23, "", "", "both hooks are: radix enabled", "src"),
        Hooks("s390", 12, 0, 0, (), 19, "", "", _NEVER, "src"),
        Hooks("loongarch64-16k", 14, 0, 0, (), 21, "", "", _NEVER, "src"),
    )
}
"""Architectures and modes by name. IOREMAP_MAX_ORDER is 7 base pages' shift more where none is defined."""


def hooks(name: str) -> Hooks:
    """The hooks of an architecture; BadInput on an unknown one."""
    if name not in ARCHES:
        raise BadInput(f"architecture {name!r}", "unknown", f"one of {', '.join(ARCHES)}")
    return ARCHES[name]
