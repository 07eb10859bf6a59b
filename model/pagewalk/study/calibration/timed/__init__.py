"""What is measured of this machine: which chases, how they are timed and counted, what the kernel lists."""
