"""What the package knows of processors and kernels, as tables for the terminal."""
