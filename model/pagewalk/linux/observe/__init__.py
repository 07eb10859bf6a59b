"""What a running kernel tells of itself, read into plain data."""
