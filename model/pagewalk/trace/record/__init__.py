"""Record a program: run it under a tracer, and keep what it accesses and where its memory lies."""
