#!/bin/bash
# Everything that the guest needs, into a work folder. What is there already is kept.
#   make.sh WORKDIR KERNEL-PACKAGE [tree]
# KERNEL-PACKAGE is a linux-image package, or one that depends on it (linux-image-amd64). With "tree", also the
# ext4 image with the names of all files of the kernel's source, for the workloads gitdiff and coldfind.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage="usage: make.sh WORKDIR KERNEL-PACKAGE [tree]"
work=${1:?$usage} package=${2:?$usage} tree=${3:-}
mkdir -p "$work/deb" && work=$(cd "$work" && pwd) && cd "$work"

# 1. Kernel: the distribution's own binary, unpacked but not installed.
if [ ! -d kernel/boot ]; then
    image=$(apt-cache depends "$package" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
    (cd deb && apt-get download -q "${image:-$package}" && dpkg -x "${image:-$package}"_*.deb ../kernel)
fi
version=$(basename kernel/lib/modules/*)
depmod -b kernel "$version"
cp kernel/boot/vmlinuz-"$version" vmlinuz

# 2. The emulator's plugin and the guest's program.
gcc -O2 -fPIC -shared -Wall -o memtrace.so "$here/../memtrace.c"
gcc -O2 -Wall -static -o wl "$here/wl.c"

# 3. A file tree: every file of the kernel's source, holding only its own name, under git, on ext4.
if [ "$tree" = tree ] && [ ! -f tree.img ]; then
    source=linux-source-$(echo "$version" | cut -d. -f1,2)
    (cd deb && apt-get download -q "$source" && dpkg -x "$source"_*.deb ../source)
    rm -rf tree && mkdir tree
    tar tf source/usr/src/"$source".tar.xz | python3 -c '
import os, sys
for line in sys.stdin:
    _, _, name = line.rstrip("\n").partition("/")
    if name.endswith("/"):
        os.makedirs("tree/linux/" + name, exist_ok=True)
    elif name:
        path = "tree/linux/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(name + "\n")
        os.utime(path, (1700000000, 1700000000))
'
    git="git -C tree/linux -c user.name=tracer -c user.email=tracer@example.org"
    $git init -q
    for setting in "checkStat minimal" "trustctime false" "preloadIndex false"; do
        git -C tree/linux config core.${setting% *} "${setting#* }"
    done
    $git config gc.auto 0
    $git add -f -A .
    $git commit -q -m base
    $git repack -a -d -q
    truncate -s 1200M tree.partial
    mkfs.ext4 -q -F -d tree -N 200000 tree.partial
    mv tree.partial tree.img
    rm -rf tree
fi

# 4. initramfs.
rm -rf root && mkdir -p root/bin root/modules root/dev root/usr
install -m755 "$here/init" root/init
install -m755 "$(command -v busybox)" wl root/bin/
for module in virtio_pci virtio_blk crc32c_generic ext4 nf_conntrack ip_tables iptable_filter xt_conntrack \
              zram; do
    modprobe -d kernel -S "$version" --show-depends "$module" | awk '$1 == "insmod" { print $2 }'
done | awk '!seen[$0]++' >modules.txt
while read -r file; do
    cp "$file" root/modules/
    basename "$file"
done <modules.txt | grep -v -E '^(zram|zsmalloc)\.ko' >root/modules.list
"$here/add-program.sh" root "$(command -v git)" "$(command -v xtables-legacy-multi)"
ln -sf xtables-legacy-multi root/bin/iptables
mkdir -p root/usr/lib/x86_64-linux-gnu/xtables
cp /usr/lib/x86_64-linux-gnu/xtables/libxt_{conntrack,standard,udp}.so root/usr/lib/x86_64-linux-gnu/xtables/
(cd root && find . | cpio -o -H newc --quiet | gzip -1) >initrd.partial
mv initrd.partial initrd.img
