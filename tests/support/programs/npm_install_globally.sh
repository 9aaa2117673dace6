#!/bin/bash
# Leave a version of T3 as `npm i -g t3@VERSION` does.
# Usage: VERSION FOLDER
set -euo pipefail

rm -rf "$2"
mkdir -p "$2"
tar -xzf "/srv/t3-$1.tgz" -C "$2" --strip-components=1 --no-same-owner
read_bin='import json, sys; print(json.load(open(sys.argv[1]))["bin"]["t3"])'
program=$(python3 -c "$read_bin" "$2/package.json")
chmod 755 "$2/$program"
ln -sfn "../lib/node_modules/t3/$program" /usr/local/bin/t3
