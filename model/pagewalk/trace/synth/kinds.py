"""What synthetic traces there are, as data: each field is an option of ``pagewalk trace synth`` too."""

from typing import Annotated

from msgspec import Meta, Struct

MI, GI = 1 << 20, 1 << 30
VMALLOC_START = 0xFFFF_C900_0000_0000
"""Start of x86-64's vmalloc space, four levels, no KASLR (Linux Documentation/arch/x86/x86_64/mm.rst)."""
GAP = 2 * MI
"""Parts of one trace begin at multiples of this, and lie at least so far apart: a PMD of x86-64."""


def _bytes(least: int, description: str, most: int = 1 << 46) -> Meta:
    return Meta(ge=least, le=most, description=description, extra={"unit": "bytes"})


class Synthetic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all synthetic traces have."""

    accesses: Annotated[int, Meta(ge=1, le=1 << 48, description="Number of accesses.")] = 10_000_000
    seed: Annotated[int, Meta(ge=0, le=(1 << 63) - 1, description="Of all that is random.")] = 0
    stores: Annotated[float, Meta(ge=0, le=1, description="Share of stores, chosen at random.")] = 0.0
    base: Annotated[int, Meta(ge=0, description="Lowest address.", extra={"unit": "address"})] = VMALLOC_START


class Uniform(Synthetic, frozen=True, kw_only=True):
    """Every 8-byte word of a table is equally likely: GUPS, a hash table without its chains."""

    size: Annotated[int, _bytes(8, "Of the table.")] = 256 * MI


class Zipf(Synthetic, frozen=True, kw_only=True):
    """The page of rank k is accessed in proportion to k^-exponent; ranks are scattered at random."""

    size: Annotated[int, _bytes(4096, "Of the table, in whole pages of 4 KiB.", 1 << 38)] = GI
    exponent: Annotated[float, Meta(ge=0, le=8, description="0 is uniform; 1 is Zipf's law.")] = 1.0


class Sequential(Synthetic, frozen=True, kw_only=True):
    """A table is read from its start to its end, again and again."""

    size: Annotated[int, _bytes(8, "Of the table.")] = 256 * MI
    step: Annotated[int, _bytes(1, "From one access to the next.")] = 8


class Stride(Synthetic, frozen=True, kw_only=True):
    """Access i is at i * step modulo size: one cache line of each page, for steps of a page and more."""

    size: Annotated[int, _bytes(8, "Of the table.")] = 256 * MI
    step: Annotated[int, _bytes(1, "From one access to the next.")] = 4096 + 64


class Chase(Synthetic, frozen=True, kw_only=True):
    """Pointers are followed through all nodes in one random cycle; each access needs the one before."""

    size: Annotated[int, _bytes(64, "Of all nodes.", 1 << 40)] = 256 * MI
    node: Annotated[int, _bytes(8, "Of one node; at most 2^28 nodes.", GI)] = 64

    def __post_init__(self) -> None:
        if not 1 <= self.size // self.node <= 1 << 28:
            raise ValueError(f"{self.size // self.node} nodes, not 1 to 2^28")


class Probes(Synthetic, frozen=True, kw_only=True):
    """Look-ups in a hash table: some accesses to hot data, a bucket at random, then that bucket's chain.

    The chain of a bucket is always the same nodes, scattered over a heap by a hash.
    """

    table: Annotated[int, _bytes(8, "Of the table of 8-byte buckets.")] = 64 * MI
    heap: Annotated[int, _bytes(64, "Where the 64-byte nodes of the chains are.")] = 256 * MI
    chain: Annotated[int, Meta(ge=0, le=1024, description="Nodes visited by each look-up.")] = 2
    hot_size: Annotated[int, _bytes(8, "Of the hot data: stack, code's variables.")] = 16 << 10
    hot: Annotated[int, Meta(ge=0, le=1024, description="Accesses to hot data in each look-up.")] = 8


class Mixed(Synthetic, frozen=True, kw_only=True):
    """Several of the others side by side; each access is that of one of them, chosen at random by weight.

    A part is written WEIGHT*KIND?FIELD=VALUE&..., with the fields that its kind has of its own.
    """

    part: Annotated[
        tuple[str, ...],
        Meta(min_length=1, max_length=64, description="WEIGHT*KIND?FIELD=VALUE&...; may be repeated."),
    ] = ("2*zipf?size=64M", "1*sequential?size=64M", "1*chase?size=16M", "1*uniform?size=256M")


KINDS: dict[str, type[Synthetic]] = {
    "uniform": Uniform,
    "zipf": Zipf,
    "sequential": Sequential,
    "stride": Stride,
    "chase": Chase,
    "probes": Probes,
    "mixed": Mixed,
}
