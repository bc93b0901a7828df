#!/usr/bin/env bash
# parts.sh [DIR]
#
# Brings what a virtual machine of a fleet is made of, and prints the folder it lies in:
#
#   kernel      Debian's kernel for clouds, as a file that firmware can start
#   initrd      guest/initrd.sh with busybox and the modules that find disks, network and /boot
#   loader.efi  systemd-boot, and with it systemd-bless-boot and what starts that
#   code.fd     OVMF, the firmware
#   vars.fd     and its variables before the first boot
#   kexec/      kexec, and the libraries that Debian's wants
#
#   DIR    default $NARWHARF_FLEET_DIR, else .cache/fleet of the repository
#   DIR/vm-<recipe>    the recipe is a hash of this file and of guest/initrd.sh
#
# The folder appears whole or not at all, and one that is there is taken without asking the network.
# Programs that this needs (qemu, mtools, ...) are installed by apt-get, and it says so; the kernel
# and systemd-boot are only unpacked. NARWHARF_FLEET_INSTALL=0 installs nothing on this machine.
set -euo pipefail

KERNEL=linux-image-cloud-amd64 # depends on the package that has it
MODULES="virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
  failover net_failover virtio_net virtio-rng nls_cp437 nls_ascii nls_utf8 fat vfat efivarfs" # each after those it needs

LIBRARIES="libxencall.so.1 libxendevicemodel.so.1 libxenevtchn.so.1 libxenforeignmemory.so.1 libxengnttab.so.1
  libxentoolcore.so.1 libxentoollog.so.1" # of kexec's libxenctrl, each in a package of its name

die() { printf 'parts.sh: %s\n' "$*" >&2; exit 1; }

here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
[ "$(id -u)" = 0 ] || die "machines are booted as root: run as root"
[ "$(dpkg --print-architecture 2> /dev/null)" = amd64 ] || die "the machines are amd64 ones, of Debian's packages: needs a Debian for amd64"
[ -c /dev/net/tun ] || die "no /dev/net/tun: a machine's network is a tap (in a container: give it that device)"

# ---- what this machine needs
packages=()
want() { command -v "$1" > /dev/null || packages+=("$2"); } # COMMAND PACKAGE
want qemu-system-x86_64 qemu-system-x86
want qemu-img qemu-utils
want sfdisk fdisk
want mkfs.vfat dosfstools
want mcopy mtools
want mkfs.ext4 e2fsprogs
want cpio cpio
[ -e /usr/share/OVMF/OVMF_CODE.fd ] || packages+=(ovmf)
updated=
update() {
  [ -z "$updated" ] || return 0
  apt-get -qq update >&2 || die "apt-get update fails (see above)"
  updated=1
}
if [ ${#packages[@]} -gt 0 ]; then
  if [ "${NARWHARF_FLEET_INSTALL:-1}" != 1 ] || ! command -v apt-get > /dev/null; then
    die "missing on this machine: ${packages[*]} (Debian's names)"
  fi
  echo "parts.sh: installing on this machine: ${packages[*]}" >&2
  update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${packages[@]}" >&2 ||
    die "apt-get cannot install ${packages[*]} (see above)"
fi

# ---- is it there already?
recipe=$(cat "$here/parts.sh" "$here/guest/initrd.sh" | sha256sum | cut -c 1-12)
dir=${1:-${NARWHARF_FLEET_DIR:-$(cd "$here/../../.." && pwd)/.cache/fleet}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
parts=$dir/vm-$recipe
have() { [ -d "$parts" ] && touch "$parts" && echo "$parts"; }
have && exit 0
exec 9> "$dir/.vm.lock"
flock 9 # two runs at once: the second finds the work done
have && exit 0

# ---- packages that are only unpacked
work=$parts.new
rm -rf "$work"
mkdir -p "$work/debs" "$work/tree"
echo "parts.sh: making $parts (some seconds)" >&2
fetch() { # PACKAGE...
  (cd "$work/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@") >&2
}
depends() { apt-cache depends "$1" 2> /dev/null | sed -n "s/^ *Depends: \\($2.*\\)/\\1/p" | head -n 1; } # PACKAGE BEGINNING
image() { depends "$KERNEL" 'linux-image-[0-9]'; }
all() { # the packages of which something is taken
  # shellcheck disable=SC2046,SC2086
  printf '%s\n' "$(image)" busybox-static systemd-boot-efi systemd-boot kexec-tools $(depends kexec-tools libxenmisc) $(echo $LIBRARIES | sed 's/\.so\.//g')
}
[ -n "$(image)" ] || update
[ -n "$(image)" ] || die "apt knows no $KERNEL: it needs a Debian mirror"
# shellcheck disable=SC2046
fetch $(all) || { # what apt knows may be of yesterday
  update
  rm -f "$work"/debs/*
  fetch $(all) || die "cannot download the kernel's package"
}
for deb in "$work"/debs/*.deb; do dpkg-deb --extract "$deb" "$work/tree"; done
find_one() { # NAME: the one file of that name
  local found
  found=$(find "$work/tree" -name "$1" -type f)
  [ -n "$found" ] || die "the packages have no $1"
  printf '%s\n' "$found"
}
cp "$(find_one 'vmlinuz-*')" "$work/kernel"
cp "$(find_one systemd-bootx64.efi)" "$work/loader.efi"
for file in systemd-bless-boot systemd-bless-boot-generator systemd-bless-boot.service; do
  cp "$(find_one "$file")" "$work/"
done
mkdir "$work/kexec"
cp "$(find "$work/tree" -path '*/sbin/kexec' -type f)" "$work/kexec/"
libs=$work/tree/usr/lib/x86_64-linux-gnu
for library in libxenctrl.so $LIBRARIES; do
  name=$(cd "$libs" && find . -maxdepth 1 -name "$library*" | sort | head -n 1)
  cp -L "$libs/$name" "$work/kexec/"
done
cp /usr/share/OVMF/OVMF_CODE.fd "$work/code.fd"
cp /usr/share/OVMF/OVMF_VARS.fd "$work/vars.fd"

root=$work/initrd.d
mkdir -p "$root"/{bin,dev,lib,proc,root,run,sys}
install -m 755 "$work/tree/bin/busybox" "$root/bin/busybox"
install -m 755 "$here/guest/initrd.sh" "$root/init"
n=10
for module in $MODULES; do
  cp "$(find_one "$module.ko")" "$root/lib/$n-$module.ko"
  n=$((n + 1))
done
# More may be put behind it: so it ends at a multiple of four.
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --reproducible --owner 0:0) | gzip -n -1 > "$work/initrd"
truncate -s %4 "$work/initrd"

rm -rf "$work/debs" "$work/tree" "$root"
for old in "$dir"/vm-*; do # what earlier recipes made and nobody used for a week
  if [ "$old" != "$work" ] && [ -n "$(find "$old" -maxdepth 0 -mtime +7)" ]; then rm -rf "$old"; fi
done
mv "$work" "$parts"
echo "$parts"
