#!/bin/bash
# install-bootloader.sh TOPLEVEL: stands in for NixOS's builder of systemd-boot's entries.
#
# Like that one it writes an entry for each generation of the system profile, and makes the one the
# default whose system is TOPLEVEL. If the profile has no such generation the default stays what it
# was, and the exit code is 0: who forgets to set the profile first boots the old system.
# Kernels and initrds are copied to /boot, which can be full.
set -euo pipefail
default=$1
boot=/boot
profile=/nix/var/nix/profiles/system
mkdir -p $boot/loader/entries $boot/EFI/nixos

put() { # SOURCE FILE: whole or not at all
  if ! cp "$1" "$2.tmp" || ! sync "$2.tmp"; then
    rm -f "$2.tmp"
    echo "cannot write $2" >&2
    return 1
  fi
  mv "$2.tmp" "$2"
}
copy() { # FILE: into /boot under its store name, which it prints
  local from name
  from=$(readlink -f "$1")
  name=${from#/nix/store/}
  name=EFI/nixos/${name//\//-}.efi
  [ -e "$boot/$name" ] || put "$from" "$boot/$name" || return 1
  echo "$name"
}

declare -A keep=()
entry=
generations=$(ls -d $profile-*-link 2> /dev/null | sed 's/.*-\([0-9]*\)-link$/\1/' | sort -n)
for n in $generations; do keep[loader/entries/nixos-generation-$n.conf]=1; done
for file in $boot/loader/entries/*.conf; do # old entries go first, to make room
  [ ! -e "$file" ] || [ -n "${keep[${file#$boot/}]:-}" ] || rm -f "$file"
done
for n in $generations; do
  system=$(readlink -f $profile-$n-link) || continue
  [ -e "$system/nixos-version" ] || continue
  kernel=$(copy "$system/kernel")
  initrd=$(copy "$system/initrd")
  keep[$kernel]=1 keep[$initrd]=1
  name=nixos-generation-$n.conf
  text=$(mktemp)
  cat > "$text" << ENTRY
title NixOS
version Generation $n $(cat "$system/nixos-version")
linux /$kernel
initrd /$initrd
options init=$system/init $(cat "$system/kernel-params")
machine-id $(cat /etc/machine-id)
ENTRY
  put "$text" "$boot/loader/entries/$name"
  rm -f "$text"
  [ "$system" != "$(readlink -f "$default")" ] || entry=$name
done
for file in $boot/EFI/nixos/*; do
  [ ! -e "$file" ] || [ -n "${keep[${file#$boot/}]:-}" ] || rm -f "$file"
done
if [ -n "$entry" ]; then
  text=$(mktemp)
  printf 'timeout 1\ndefault %s\nconsole-mode keep\n' "$entry" > "$text"
  put "$text" $boot/loader/loader.conf
  rm -f "$text"
fi
sync -f $boot
