"""Other ways to kernel addresses than vmalloc: kvmalloc, vmap of pages, ioremap of devices.

Importing a module of this package teaches `pagewalk.linux.memory.kernel` its events.
"""
