#!/bin/sh
# A hook that keeps what it is told, in /var/lib/told/run.
umask 077
mkdir -p /var/lib/told
cat >/var/lib/told/new && mv /var/lib/told/new /var/lib/told/run
