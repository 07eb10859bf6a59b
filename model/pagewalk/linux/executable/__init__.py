"""Users of executable memory: modules, BPF programs, probes, and the cache that serves them since 6.15.

Importing this package teaches `pagewalk.linux.memory.kernel` their events.
"""

from pagewalk.linux.executable.bpf import LoadBpf, UnloadBpf
from pagewalk.linux.executable.modules import InitDone, LoadModule, UnloadModule
from pagewalk.linux.executable.probes import AddKprobes, AddTrampoline, RemoveKprobes, RemoveTrampoline
from pagewalk.linux.mappers.ioremap import Ioremap, Iounmap
from pagewalk.linux.mappers.kvmalloc import Kvfree, Kvmalloc
from pagewalk.linux.mappers.vmap import Vmap, Vunmap
from pagewalk.linux.memory.kernel import Booted, SetMemory, UnmapAliases, Vfree, Vmalloc, Vrealloc

Event = (
    Booted
    | Vmalloc
    | Vfree
    | Vrealloc
    | SetMemory
    | UnmapAliases
    | Kvmalloc
    | Kvfree
    | Vmap
    | Vunmap
    | Ioremap
    | Iounmap
    | LoadModule
    | InitDone
    | UnloadModule
    | LoadBpf
    | UnloadBpf
    | AddKprobes
    | RemoveKprobes
    | AddTrampoline
    | RemoveTrampoline
)
"""All events, for ``msgspec.convert(..., list[Event])``."""
