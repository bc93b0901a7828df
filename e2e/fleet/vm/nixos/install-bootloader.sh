#!/bin/bash
# install-bootloader.sh SCRIPT TOPLEVEL: SCRIPT writes the boot entries; this adds what only a real
# boot shows.
#
# It stops at the hold points before-entry and after-entry (../guest/hold). If /var/lib/fleet/tries holds
# a number, the entry of a system that did not boot this machine gets that many tries, as systemd-boot
# counts them, and the newest entry that has a try left is the default. A boot that comes up is taken
# as good by systemd-bless-boot.
set -euo pipefail
script=$1 toplevel=$2
hold=/usr/local/lib/fleet/hold
[ ! -x $hold ] || $hold before-entry
"$script" "$toplevel"
tries=$(cat /var/lib/fleet/tries 2> /dev/null || true)
if [ -n "$tries" ]; then
  cd /boot/loader
  name=$(sed -n 's/^default //p' loader.conf)
  if [ "$(readlink -f "$toplevel")" != "$(readlink -f /run/booted-system)" ]; then
    mv "entries/$name" "entries/${name%.conf}+$tries.conf"
  fi
  sed 's/^default .*/default nixos-generation-*/' loader.conf > loader.conf.tmp
  sync loader.conf.tmp
  mv loader.conf.tmp loader.conf
  sync -f /boot
fi
[ ! -x $hold ] || $hold after-entry
