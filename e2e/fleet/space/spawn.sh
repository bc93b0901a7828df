#!/bin/sh
# spawn.sh NAME ROOT CGROUP...
#
# Boots the machine in ROOT as its own first process would be by a firmware and a boot loader: see
# ../host/boot. It gets a control group of its own in every hierarchy that systemd uses, for two
# systemds in one would end each other's services. Ends with 0 when the host was powered off, 133
# when it wants to reboot, anything else when it was killed.
set -eu
name=$1 root=$2
shift 2
for group; do
  mkdir -p "$group"
  echo 0 > "$group/cgroup.procs"
done
exec systemd-nspawn --quiet --directory="$root" --machine="$name" \
  --register=no --keep-unit --settings=no \
  --network-namespace-path="/run/netns/$name" --capability=CAP_NET_ADMIN \
  --resolv-conf=off --timezone=off --link-journal=no \
  --console=pipe --kill-signal=SIGRTMIN+3 \
  /usr/local/lib/fleet/boot
