#!/bin/sh
# power.sh DIR PARTS: switches the virtual machine in DIR/vm on, in the network that this runs in.
#
# A reset ends it too, for it to be started again: firmware is slow where qemu has translated another
# program before. The machine's first network card hangs on that network's eth0, its second one ends here: of it
# only a connection to 127.0.0.1:2222 gets in, and nothing out. KVM is not used. What qemu has
# translated it forgets after 32 MiB, and nothing is cleared byte by byte: a kernel that takes the place of another one writes
# where the old one's code was, and each such store is slow.
set -eu
dir=$1/vm parts=$2
if ! ip link show tap0 > /dev/null 2>&1; then
  ip addr flush dev eth0 # the address that the installation had is the machine's now
  ip link add name br0 type bridge
  ip tuntap add dev tap0 mode tap
  ip link set tap0 master br0 up
  ip link set eth0 master br0 up
  ip link set br0 up
fi
disk() { # NAME OPTIONS
  printf '%s\n' -drive "if=none,id=$1,file=$dir/disks/$1,format=qcow2,cache=writeback" -device "virtio-blk-pci,drive=$1$2"
}
# shellcheck disable=SC2046
exec qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -monitor none \
  -machine q35 -accel tcg,tb-size=32 -cpu max,-erms -smp 1 -m 1024 -rtc base=utc \
  -drive "if=pflash,unit=0,format=raw,readonly=on,file=$parts/code.fd" \
  -drive "if=pflash,unit=1,format=raw,file=$dir/disks/vars.fd" \
  $(disk esp ,bootindex=0) $(disk root '') $(disk store '') \
  -netdev tap,id=lan,ifname=tap0,script=no,downscript=no -device virtio-net-pci,netdev=lan,romfile= \
  -netdev user,id=harness,restrict=on,hostfwd=tcp:127.0.0.1:2222-10.0.2.15:2222 -device virtio-net-pci,netdev=harness,romfile= \
  -device virtio-rng-pci \
  -chardev "file,id=console,path=$dir/console,append=on" -serial chardev:console
