"""What a trace is: as plain data, in the terminal, and as pictures."""
