"""The engine: trace x mapping x machine -> result."""
