"""What each study found, as tables for the terminal and as figures."""
