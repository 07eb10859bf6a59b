"""What a program did: the trace itself, synthetic generators, readers of other tools' formats."""
