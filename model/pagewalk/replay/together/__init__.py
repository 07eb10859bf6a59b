"""Many machines over one trace at the price of few: what they have in common is replayed once."""
