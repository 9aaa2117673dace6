#!/bin/bash
# Boot a machine over a tree and keep it until standard input ends: then nothing of it is left, however its user ended.
# Usage: boot.sh TREE FOLDER NAME [NSPAWN-OPTION...], in a private mount namespace; FOLDER is ours, and goes with the machine.
set -euo pipefail
umask 022
tree=$1 folder=$2 name=$3
shift 3

# systemd-nspawn and its systemd want /run on a tmpfs, and cgroup2 alone; the host may have neither.
mount -t tmpfs -o mode=755 tmpfs /run
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
cgroup=/sys/fs/cgroup/$name

# End all that runs in it at once.
end() {
    echo 1 >"$cgroup/cgroup.kill"
    wait
    for _ in {1..500}; do grep -qx 'populated 0' "$cgroup/cgroup.events" && break || sleep 0.02; done
    find "$cgroup" -depth -type d -exec rmdir {} +
}

finish() {
    trap '' EXIT HUP INT TERM
    set +e
    exec 2>/dev/null
    end
    umount "$folder/root"
    rm -rf "$folder"
}
mkdir "$cgroup"
trap finish EXIT
trap 'exit 143' HUP INT TERM

# What wants a file system of the usual kind lies beside the overlay.
mkdir -p "$folder"/{upper,work,root,disk/home,disk/backups,disk/tmp}
chmod 1777 "$folder/disk/tmp"
mount -t overlay -o "lowerdir=$tree,upperdir=$folder/upper,workdir=$folder/work,volatile" overlay "$folder/root"

boot() {
    (
        echo $BASHPID >"$cgroup/cgroup.procs"
        exec systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --link-journal=no --resolv-conf=off \
            --timezone=off --console=pipe --machine="$name" --hostname=machine --directory="$folder/root" \
            --bind="$folder/disk/home:/home" --bind="$folder/disk/backups:/var/backups" --bind="$folder/disk/tmp:/var/tmp" \
            "$@" </dev/null &>"$folder/console"
    ) &
    echo $!
}
boot "$@"
# Each line that comes is a power cut: it is booted again, with what is on its disk.
while read -r; do
    end 2>/dev/null
    mkdir "$cgroup"
    boot "$@"
done
