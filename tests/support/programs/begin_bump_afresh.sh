#!/bin/bash
# Take everything away that a bump has made, and put back what was kept before the first one.
# Usage: ROOT STORE
set -euo pipefail

systemctl stop 't3-serve@*'
systemctl reset-failed
rm -rf "$1" "$2"/* /home/* /root/*.sqlite /var/lib/t3-backup/stores.json
rm -rf /etc/systemd/system/t3-serve@.service.d /etc/t3-autoupdate.freeze /run/t3-fake-live
systemctl daemon-reload
cp -a /srv/kept/home/* /home/
cp -a /srv/kept/t3-autoupdate /etc/default/
