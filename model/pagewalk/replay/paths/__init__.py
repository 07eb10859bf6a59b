"""How accesses go through the hardware: the fast path, the general one, what they carry along."""
