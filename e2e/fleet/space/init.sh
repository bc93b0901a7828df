#!/bin/sh
# init.sh: the first process of a fleet's mount and process namespace. When it ends, the kernel
# ends every process of the fleet, unmounts everything and removes its networks.
set -eu
# The machine's /run is hidden: systemd-nspawn and ip keep notes there.
mount -t tmpfs -o mode=755,size=64m fleet /run
mkdir -p /run/netns /run/lock
echo ready
exec > /dev/null 2>&1
# A loop, not `sleep infinity`: the first process of a namespace has to wait for orphans.
while :; do sleep 3600 & wait; done
