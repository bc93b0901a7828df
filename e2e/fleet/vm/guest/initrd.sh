#!/bin/busybox sh
# shellcheck shell=dash
# initrd.sh: NixOS's stage 1 of a virtual machine. It finds the disks, mounts / and /nix, and hands
# over to what the kernel's command line calls init=, which is a file of the system in /nix/store.
# Whatever goes wrong here ends the first process: the kernel panics, as it would on a real host.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o mode=755 run /run
exec > /dev/console 2>&1
for module in /lib/*.ko; do insmod "$module" || exit 1; done
n=0
until [ -b /dev/vdc ]; do # esp, root, nix
  n=$((n + 1))
  [ $n -lt 200 ] || { echo "initrd: no disks"; exit 1; }
  sleep 0.05
done
# A root that is forgotten at every boot: the disk gives what an image or a person puts there each time,
# as if nobody had written to it, and /var/lib/fleet, which is the harness's own.
forgetful() {
  echo "initrd: the root is a tmpfs"
  mount -t tmpfs -o mode=755,size=256m root /root
  cd /disk || exit 1
  for d in *; do
    case $d in
      nix | usr | boot | var | tmp | lost+found) mkdir -p "/root/$d" ;;
      *) cp -a "$d" /root/ ;;
    esac
  done
  mkdir -p /root/var/lib /root/var/log /root/var/cache /root/var/tmp
  chmod 1777 /root/tmp /root/var/tmp
  cp -a var/run var/lock /root/var/
  [ ! -d var/lib/narwharf ] || cp -a var/lib/narwharf /root/var/lib/
  tr -d - < /proc/sys/kernel/random/uuid > /root/etc/machine-id
  mkdir -p /root/var/lib/fleet
  mount -o bind usr /root/usr && mount -o bind var/lib/fleet /root/var/lib/fleet || exit 1
  cd /
  umount -l /disk
}
mkdir -p /disk
mount -t ext4 /dev/vdb /disk || exit 1
if [ -e /disk/var/lib/fleet/tmpfs-root ]; then forgetful; else mount --move /disk /root; fi
mount -t ext4 /dev/vdc /root/nix || exit 1
init=$(sed -n 's/.*\binit=\([^ ]*\).*/\1/p' /proc/cmdline)
cp /version /run/initrd-version 2> /dev/null || : # see nixos/toplevel.nix
echo "fleet: boot $(cat /proc/sys/kernel/random/boot_id) $init"
for d in proc sys dev run; do mount --move /$d /root/$d; done
exec switch_root /root "$init"
