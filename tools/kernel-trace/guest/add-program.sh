#!/bin/bash
# Copy programs with their shared libraries into a file tree:  add-program.sh ROOT PROGRAM...
set -euo pipefail
root=${1:?usage: add-program.sh ROOT PROGRAM...}
shift
for program in "$@"; do
    install -D -m755 "$program" "$root/bin/$(basename "$program")"
    { ldd "$program" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
