"""The kernel's memory at work: pages, vmalloc areas, page tables, the direct map, executable memory."""
