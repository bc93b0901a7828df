#!/bin/sh
# disk.sh DIR DISK [FILE]: shows a file of a disk of the machine in DIR/vm, which is off, or with no
# FILE the journal on it. It works on a copy, whose own journal is replayed as in a boot.
set -eu
vm=$1/vm/disks disk=$2 file=${3:-}
PATH=$PATH:/usr/sbin:/sbin
copy=$(mktemp -d "$vm/disk.XXXXXX")
trap 'rm -rf "$copy"' EXIT
qemu-img convert -O raw "$vm/$disk" "$copy/raw"
e2fsck -fy "$copy/raw" > /dev/null 2>&1 || [ $? -lt 4 ]
if [ -n "$file" ]; then
  debugfs -R "cat $file" "$copy/raw" 2> /dev/null
else
  mkdir "$copy/journal"
  debugfs -R "rdump /var/log/journal $copy/journal" "$copy/raw" 2> /dev/null
  journalctl --no-pager -o short-precise --lines=2000 --directory="$copy/journal/journal"
fi
