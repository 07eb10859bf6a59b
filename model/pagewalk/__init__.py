"""What reaching kernel memory through the TLB costs, and what larger pages would change."""

__version__ = "0.1.0"
