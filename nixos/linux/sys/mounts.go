package sys

import (
	"os"
	"slices"
	"strings"
)

// bootDirs are where boot partitions usually are.
var bootDirs = []string{"/boot", "/efi", "/boot/efi"}

// BootMounts are the file systems that the machine boots from: those of /boot, /efi and
// /boot/efi, local ones whose names begin with /boot, such as /boot/firmware, EFI system partitions
// wherever they are mounted, and where else a boot loader has its files, as on the mirrors that GRUB
// is given by boot.loader.grub.mirroredBoots.
func BootMounts() []string {
	for _, d := range bootDirs {
		if f, err := os.Open(d); err == nil { // an automount is there from now on
			f.Close()
		}
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return bootDirs
	}
	return bootMounts(string(text), func(name string) bool { _, err := os.Stat(name); return err == nil }, os.ReadFile)
}

// localKinds are file systems that are asked for a boot loader's files: they answer, which
// one of a network may not, and they can be full, which an image of a CD always is.
var localKinds = []string{"vfat", "msdos", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs"}

// loaderFiles are those of systemd-boot, GRUB, extlinux and any EFI loader. Names on vfat are the
// same in upper and lower case.
var loaderFiles = []string{"EFI", "loader/loader.conf", "grub/grub.cfg", "extlinux/extlinux.conf"}

// bootMounts reads a mountinfo (proc_pid_mountinfo(5)).
func bootMounts(mountinfo string, exists func(string) bool, read func(string) ([]byte, error)) (dirs []string) {
	for line := range strings.Lines(mountinfo) {
		mount, filesystem, ok := strings.Cut(line, " - ")
		m, fs := strings.Fields(mount), strings.Fields(filesystem)
		if !ok || len(m) < 6 || len(fs) < 1 {
			continue
		}
		dir, options, kind := mountEscapes.Replace(m[4]), strings.Split(m[5], ","), fs[0]
		has := func(file string) bool { return exists(dir + "/" + file) }
		switch {
		case dir == "/" || kind == "autofs" || slices.Contains(dirs, dir):
		case slices.Contains(bootDirs, dir):
			dirs = append(dirs, dir)
		case slices.Contains(options, "ro") || !slices.Contains(localKinds, kind):
		case strings.HasPrefix(dir, "/boot"), slices.ContainsFunc(loaderFiles, has), kind == "vfat" && systemPartition(m[2], read):
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// systemPartition tells whether udev knows a device, "8:1", for an EFI system partition, by
// its type in a GPT or in an MBR. One that is new has no files yet.
func systemPartition(device string, read func(string) ([]byte, error)) bool {
	text, err := read("/run/udev/data/b" + device)
	return err == nil && (strings.Contains(string(text), "E:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n") ||
		strings.Contains(string(text), "E:ID_PART_ENTRY_TYPE=0xef\n"))
}
