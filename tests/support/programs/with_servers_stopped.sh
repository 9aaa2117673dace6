#!/bin/bash
# Save some places, or put back what was saved, while no server runs; then start the servers, and
# wait until each answers.
# Usage: save|put_back FOLDER "UNIT..." "PORT..." PLACE... What is put back replaces the places.
set -euo pipefail

what=$1 folder=$2
read -ra units <<<"$3"
read -ra ports <<<"$4"
places=("${@:5}")

systemctl stop "${units[@]}"
if [ "$what" = save ]; then
    rm -rf "$folder"
    mkdir "$folder"
    cp -a --parents "${places[@]}" "$folder"
else
    rm -rf "${places[@]}" /etc/t3-autoupdate.freeze /run/t3-fake-live
    cp -a "$folder/." /
fi
systemctl reset-failed 't3-serve@*' 't3-as-*' 't3-autoupdate*' 2>/dev/null || true
systemctl start "${units[@]}"
for port in "${ports[@]}"; do
    for _ in {1..600}; do
        if exec 3<>"/dev/tcp/127.0.0.1/$port" && printf 'GET / HTTP/1.0\r\n\r\n' >&3; then
            read -r -t 0.5 -n 1 -u 3 && break
        fi
        sleep 0.05
    done 2>/dev/null
done
