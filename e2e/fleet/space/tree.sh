#!/bin/sh
# tree.sh DIR BASE [OPTION=VALUE...]
#
# Mounts the file system of one machine at DIR/root: an overlay of DIR/layer (what the harness puts
# in) on BASE. What the machine writes is in DIR/upper and stays over a reboot. Mounted again, it
# begins a new boot.
#
#   nix=FOLDER      another Nix (a suite of nix-clients.sh), seen at /opt/nix
#   boot=BYTES      /boot is a file system of that size, which stays over a reboot
#   store=BYTES     /nix is a file system of that size
#   root=tmpfs      everything but /nix and /boot is forgotten at the end of a boot, also which
#                   machine this is: /etc/machine-id is another one then
#   proc=1          /proc and terminals are there (for machines that boot nothing)
set -eu
dir=$1 base=$2
shift 2
nix= boot= store= root= proc=
for option; do
  case $option in
    nix=*) nix=${option#*=} ;;
    boot=*) boot=${option#*=} ;;
    store=*) store=${option#*=} ;;
    root=tmpfs) root=tmpfs ;;
    proc=1) proc=1 ;;
    *=) ;;
    *) echo "tree.sh: unknown option $option" >&2; exit 1 ;;
  esac
done

overlay() { # LOWER UPPER MOUNTPOINT
  mkdir -p "$2/upper" "$2/work" "$3"
  mount -t overlay fleet -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$3"
}
once() { # FOLDER BYTES: a small file system that stays
  mkdir -p "$1"
  mountpoint -q "$1" || mount -t tmpfs -o "mode=755,size=$2" fleet "$1"
}

mountpoint -q "$dir/root" && umount -R "$dir/root"
mkdir -p "$dir/layer" "$dir/changes"
if [ "$root" = tmpfs ]; then
  mountpoint -q "$dir/changes" && umount "$dir/changes"
  mount -t tmpfs -o mode=755,size=512m fleet "$dir/changes"
  mkdir -p "$dir/changes/upper/etc"
  tr -d - < /proc/sys/kernel/random/uuid > "$dir/changes/upper/etc/machine-id"
fi
overlay "$dir/layer:$base" "$dir/changes" "$dir/root"
if [ "$root" = tmpfs ] || [ -n "$store" ]; then
  [ -z "$store" ] || once "$dir/store" "$store"
  overlay "$base/nix" "$dir/store" "$dir/root/nix"
fi
if [ -n "$boot" ]; then
  once "$dir/boot" "$boot"
  mkdir -p "$dir/root/boot"
  mount --bind "$dir/boot" "$dir/root/boot"
fi
if [ -n "$nix" ]; then
  mkdir -p "$dir/root/opt/nix"
  mount --bind "$nix" "$dir/root/opt/nix"
  mount -o remount,bind,ro "$dir/root/opt/nix"
fi
if [ -n "$proc" ]; then
  mount -t proc proc "$dir/root/proc"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$dir/root/dev/pts" # Nix builds on a terminal
  ln -sfn pts/ptmx "$dir/root/dev/ptmx"
fi
