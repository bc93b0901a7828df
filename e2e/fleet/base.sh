#!/usr/bin/env bash
# base.sh [DIR]
#
# Makes the tree that every machine of a fleet is an overlay on: Debian 12 with systemd, dbus,
# iproute2, curl, ssh-keygen and Debian's Nix with its daemon. Prints the tree's path on standard output.
#
#   DIR    default $NARWHARF_FLEET_DIR, else .cache/fleet of the repository
#   DIR/base-<recipe>    the recipe is a hash of this file and the architecture
#
# A tree appears whole or not at all, and one that is there is taken without asking the network.
# What this needs of the machine (debootstrap, systemd-nspawn, ip, ...) it installs by apt-get, and
# says so. Environment: DEBIAN_MIRROR (default: where this machine's apt gets Debian from),
# DEBIAN_KEYRING, NARWHARF_FLEET_INSTALL=0 to install nothing on this machine.
set -euo pipefail

SUITE=bookworm # its systemd boots on cgroup v1, v2 and a mixture; newer ones want v2 alone
INCLUDE=systemd,systemd-sysv,dbus,ca-certificates,iproute2,curl,openssh-client
LATER="nix-bin nix-setup-systemd" # debootstrap cannot configure these: they want /proc
# What would ask for a network, a terminal or a disk of its own.
MASK="apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
  fstrim.timer getty.target console-getty.service systemd-pstore.service"

die() { printf 'base.sh: %s\n' "$*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || die "hosts are booted as root: run as root"

# ---- what the machine needs
packages=()
want() { command -v "$1" > /dev/null || packages+=("$2"); } # COMMAND PACKAGE
want debootstrap debootstrap
want systemd-nspawn systemd-container
want ip iproute2
want nsenter util-linux
want mount mount
want gpgv gpgv # debootstrap only recommends it
if [ ${#packages[@]} -gt 0 ]; then
  if [ "${NARWHARF_FLEET_INSTALL:-1}" != 1 ] || ! command -v apt-get > /dev/null; then
    die "missing on this machine: ${packages[*]} (Debian's names)"
  fi
  echo "base.sh: installing on this machine: ${packages[*]}" >&2
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update >&2 || die "apt-get update fails (see above); install ${packages[*]} by hand"
  apt-get -qq -y install --no-install-recommends "${packages[@]}" >&2 ||
    die "apt-get cannot install ${packages[*]} (see above)"
fi

# ---- is it there already?
arch=$(dpkg --print-architecture 2> /dev/null) || die "no dpkg on this machine: the tree is made of Debian's packages"
recipe=$({ cat "$here/base.sh"; echo "$arch"; } | sha256sum | cut -c 1-12)
dir=${1:-${NARWHARF_FLEET_DIR:-$(cd "$here/../.." && pwd)/.cache/fleet}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
base=$dir/base-$recipe
case $base in *[:,\\]*) die "$base cannot be a lower folder of an overlay: no colon, comma or backslash in NARWHARF_FLEET_DIR" ;; esac
have() { [ -d "$base" ] && touch "$base" && echo "$base"; }
have && exit 0

# ---- in a mount and process namespace, so that nothing stays mounted or running when this is killed
if [ "${BASE_SH_INSIDE:-}" != 1 ]; then
  exec 9> "$dir/.base.lock"
  flock 9 # two runs at once: the second finds the work done
  have && exit 0
  BASE_SH_INSIDE=1 exec unshare --mount --pid --fork --kill-child --mount-proc --propagation private "$here/base.sh" "$dir"
fi

mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(ORIGIN)|$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2> /dev/null | sed -n 's/^Debian|Debian|//p' | head -n 1)}
[ -n "$mirror" ] || die "apt knows no Debian mirror: run apt-get update as root, or set DEBIAN_MIRROR"
keyring=${DEBIAN_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}
[ -r "$keyring" ] || die "cannot read the keyring $keyring: apt-get install debian-archive-keyring, or set DEBIAN_KEYRING"
for scheme in http https; do # debootstrap downloads with wget, which asks the environment
  proxy=$(apt-config dump "Acquire::$scheme::Proxy" 2> /dev/null | sed -n 's/.* "\(.*\)";$/\1/p' | head -n 1)
  [ -z "$proxy" ] || export "${scheme}_proxy=$proxy"
done

work=$base.new
log=$base.log
rm -rf --one-file-system "$work"
export DPKG_FORCE=unsafe-io DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
echo "base.sh: making $base from Debian $SUITE (about a minute)" >&2
debootstrap --variant=minbase --keyring="$keyring" --include="$INCLUDE" "$SUITE" "$work" "$mirror" > "$log" 2>&1 ||
  { tail -n 20 "$log" >&2; die "debootstrap fails; DEBIAN_MIRROR names another mirror (whole log: $log)"; }
mount -t proc proc "$work/proc"
# shellcheck disable=SC2086
chroot "$work" apt-get -q -y install --no-install-recommends $LATER >> "$log" 2>&1 ||
  { tail -n 20 "$log" >&2; die "cannot install $LATER in the tree (whole log: $log)"; }
umount "$work/proc"

rm -rf "$work"/var/cache/apt/archives/*.deb "$work"/var/lib/apt/lists/* "$work"/usr/share/{doc,man,locale,lintian} "$work"/etc/{machine-id,hostname}
: > "$work/etc/resolv.conf" # debootstrap copied the machine's
for unit in $MASK; do ln -sfn /dev/null "$work/etc/systemd/system/$unit"; done
for old in "$dir"/base-*; do # what earlier recipes made and nobody used for a week
  if [ "$old" != "$work" ] && [ -n "$(find "$old" -maxdepth 0 -mtime +7)" ]; then rm -rf --one-file-system "$old"; fi
done
mv "$work" "$base"
rm -f "$log"
echo "$base"
