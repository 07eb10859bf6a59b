"""What the processor is: TLBs, paging-structure caches, data caches, walkers."""
