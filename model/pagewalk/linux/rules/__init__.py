"""What each kernel release decides, as data with sources and as functions on it."""
