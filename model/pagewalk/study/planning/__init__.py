"""What one machine, or a fleet, would gain and pay: a snapshot, what it could map huge, and what to do."""
