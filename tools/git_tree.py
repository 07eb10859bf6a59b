"""Make a git repository with as many files as the one whose `git diff` was recorded, to trace its user half.

    python tools/git_tree.py FOLDER
    cd FOLDER && pagewalk trace record --out ../user.trace -- git diff

78,635 small files (shared traces' README) in about as many directories as a kernel tree has, paths of 40
characters on average; names are ours. Names and contents are the same each time. See docs/power9.md.
"""

import random
import string
import subprocess
import sys
from pathlib import Path

FILES, DIRECTORIES, DEEPEST = 78_635, 5_200, 6
GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")


def paths() -> list[str]:
    """Paths of all files, ascending."""
    chosen = random.Random(1)
    words = ["".join(chosen.choices(string.ascii_lowercase, k=chosen.randint(3, 9))) for _ in range(2000)]
    folders: list[str] = []
    for number in range(DIRECTORIES):
        above = chosen.choice(folders) if folders and chosen.random() < 0.85 else ""
        inside = f"{above}/" if above and above.count("/") < DEEPEST - 1 else ""
        folders.append(f"{inside}{chosen.choice(words)}{number % 97}")
    found: set[str] = set()
    while len(found) < FILES:
        found.add(f"{chosen.choice(folders)}/{chosen.choice(words)}_{chosen.choice(words)[:5]}.c")
    return sorted(found)


def main() -> None:
    root = Path(sys.argv[1])
    for number, path in enumerate(paths()):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number % 500))
    for command in (
        ["init", "-q"],
        ["config", "core.preloadIndex", "false"],
        ["add", "."],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*GIT, *command], cwd=root, check=True)


if __name__ == "__main__":
    main()
