"""The kernel's memory as a machine: page allocator, vmalloc areas, page tables, direct map, executable memory."""
