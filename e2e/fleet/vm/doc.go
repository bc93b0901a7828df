// Package vm boots a host of a fleet as a virtual machine, for what a container cannot tell
// truthfully: firmware, a boot loader and its entries, a kernel and an initrd that are those of the
// system, a boot id of the kernel's own, and a power cut that loses what was not flushed.
//
// [New] makes a fleet whose host h1 is one. The fleet, its server and its CI are those of package
// fleet; so are all verbs of [Host] that do not deal with power.
//
// # What a machine is
//
// qemu emulates it (KVM is never asked), as one processor with 1 GiB and three disks that image.sh
// makes in memory from the tree of the fleet's host. With them it takes 2.5 GiB at most.
//
//	vda   the EFI system partition: systemd-boot and what the host has in /boot
//	vdb   /, or of a root of tmpfs what is there at each boot anew
//	vdc   /nix, a file system of its own: what is synced of / is not synced of it
//
// OVMF starts systemd-boot, that starts the kernel of the default entry, and guest/initrd.sh hands
// over to the init= of its options, which is the init of a system in /nix/store. Firmware, kernel
// and systemd-boot are Debian's (parts.sh). A system's `kernel` of another name is the same kernel
// with other bytes at the end, and its initrd shows that name in /run/initrd-version.
//
// Boot entries are written by the same script as in a container, to a real FAT. With a number in
// the host's /var/lib/fleet/tries, new ones count their tries (nixos/install-bootloader.sh): what does
// not come up so often is passed over by systemd-boot, and systemd-bless-boot takes the counter away
// from what does. A kernel panic is a reset after a second.
//
// # Power
//
// [Host.PowerCut] is SIGKILL for qemu. The machine's page cache is gone with it, and what it wrote
// to new places on a disk and did not flush (qcow2 keeps in memory where they are). [Host.Hold] makes
// a machine wait at a point of its scripts and say so on the console, so that a test can cut its power
// right there.
//
// Every reset ends qemu too, and another one is started. That is three times as fast as resetting
// one, and makes no difference to the machine. Where a kernel starts another one (Debian's kexec-tools are in the machine),
// qemu goes on: [Host.Boots] counts it, [Host.Firmware] does not.
//
// # A root that is forgotten
//
// After [Host.Forget] a machine boots with a root of tmpfs, as guest/initrd.sh makes it: it keeps /nix and
// the EFI system partition. /usr and the files that an image has come from the disk each time, as does the
// harness's own /var/lib/fleet; the machine id is another one at each boot.
//
// # The way in
//
// Programs run through a socket on a second network card, whose other end is inside qemu and open to
// the host's network namespace alone (call.sh, guest/exec): it works whatever a system does to eth0.
//
// # Limits
//
// A boot takes eight seconds, and a switch ten: more where others work, up to ten times as much. There is
// no udev, TPM or secure boot, and no unclean shutdown of a disk: what was flushed is there.
// Nothing stays behind: qemu runs in the fleet's namespaces and ends with them.
package vm
