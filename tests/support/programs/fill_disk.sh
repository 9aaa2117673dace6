#!/bin/bash
# Put a folder on a disk of its own, with what it has, and no more room than SPARE.
# Usage: FOLDER SPARE
set -euo pipefail

mkdir -p "$1"
cp -a "$1" /var/tmp/aside
size=$(($(du -sk "$1" | cut -f1) * 5 / 4 + 65536))k
mount -t tmpfs -o "mode=$(stat -c %a "$1"),size=$size" tmpfs "$1"
cp -a /var/tmp/aside/. "$1"
rm -rf /var/tmp/aside
avail=$(df --output=avail -B1 "$1" | tail -n 1)
head -c $((avail - $(numfmt --from=iec "$2"))) /dev/zero >"$1/.filling"
