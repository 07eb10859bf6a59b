"""``python -m pagewalk``."""

from pagewalk.cli import main

main()
