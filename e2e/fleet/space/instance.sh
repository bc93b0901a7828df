#!/bin/sh
# instance.sh DIR LOWER NAME
#
# One machine of a group (group_test.go), as its first process, in namespaces of its own: mounts, processes, name, and the
# network that this runs in. Its root is an overlay on LOWER, the layers of an image; it boots that image by ../host/boot,
# but its init is no systemd: see init. When its first process ends, nothing of it is left but its disk.
set -eu
dir=$1 lower=$2 name=$3
mkdir -p "$dir/upper" "$dir/work" "$dir/root"
root=$dir/root
mount -t overlay fleet -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755,size=4m run "$root/run"
mount -t tmpfs -o mode=1777,size=4m tmp "$root/tmp"
cat /proc/sys/kernel/random/uuid > "$root/run/boot-id" # as systemd-nspawn does
mount --bind "$root/run/boot-id" "$root/proc/sys/kernel/random/boot_id"
hostname "$name"
exec chroot "$root" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 /usr/local/lib/fleet/boot
