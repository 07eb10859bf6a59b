"""A machine file from the machine itself: timed chases, and the geometry and latencies that fit them."""
