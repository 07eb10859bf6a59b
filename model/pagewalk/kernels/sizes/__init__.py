"""Every size in one pass: stack distances, all numbers of sets and ways, and the walk caches behind each."""
