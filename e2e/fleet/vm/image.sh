#!/bin/sh
# image.sh DIR PARTS ESP ROOT STORE
#
# Inside the fleet: makes the disks of a virtual machine from the tree of a host that is off
# (DIR/root), in DIR/vm/disks. The sizes are bytes.
#
#   esp      what firmware starts: a partition table, and a FAT with systemd-boot and the tree's /boot
#   root     ext4 with all but /boot and /nix
#   store    ext4 with /nix, so that syncing one file system is not syncing the other
#
# NAME.raw is never written again: NAME is what the machine writes, as qcow2. What a machine has
# allocated there and not flushed is in qemu's memory, and lost with it: a disk with a write cache.
# All of it lies in this machine's memory, where a flush waits for nobody.
set -eu
dir=$1 parts=$2 esp=$3 root=$4 store=$5
PATH=$PATH:/usr/sbin:/sbin
vm=$dir/vm
mountpoint -q "$vm/disks" && umount "$vm/disks"
rm -rf "$vm"
mkdir -p "$vm/tree" "$vm/disks"
disks=$vm/disks
mount -t tmpfs -o size=4g,mode=700 disks "$disks"
export MTOOLS_SKIP_CHECK=1

mount --bind "$dir/root" "$vm/tree" # without what is mounted in it
for hidden in nix boot; do
  mkdir -p "$vm/tree/$hidden"
  mount -t tmpfs -o size=1m,mode=755 hidden "$vm/tree/$hidden"
done
ext4() { # FILE BYTES TREE
  truncate -s "$2" "$1"
  mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 -d "$3" "$1"
}
ext4 "$disks/root.raw" "$root" "$vm/tree"
ext4 "$disks/store.raw" "$store" "$dir/root/nix"
umount -R "$vm/tree"

mega=1048576
truncate -s $((esp - 2 * mega)) "$disks/fat"
mkfs.vfat -F 32 -n ESP "$disks/fat" > /dev/null
mmd -i "$disks/fat" ::EFI ::EFI/BOOT
mcopy -i "$disks/fat" "$parts/loader.efi" ::EFI/BOOT/BOOTX64.EFI
mcopy -i "$disks/fat" -s -D s "$dir/root/boot/loader" "$dir/root/boot/EFI" ::
truncate -s "$esp" "$disks/esp.raw"
printf 'label: gpt\nstart=2048, size=%d, type=uefi\n' $((esp / 512 - 4096)) | sfdisk -q "$disks/esp.raw"
dd if="$disks/fat" of="$disks/esp.raw" bs=1M seek=1 conv=notrunc,sparse status=none
rm -f "$disks/fat"

for disk in esp root store; do
  qemu-img create -q -f qcow2 -b "$disks/$disk.raw" -F raw "$disks/$disk"
done
cp "$parts/vars.fd" "$disks/vars.fd"
