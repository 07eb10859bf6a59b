"""Any machine: one loop over units, one rule at a time; sealed as all kernels are."""
