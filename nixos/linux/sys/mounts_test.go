package sys

import (
	"errors"
	"slices"
	"testing"
)

func TestBootMounts(t *testing.T) {
	const text = `22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
30 22 0:25 / /boot rw,relatime shared:9 - autofs systemd-1 rw,fd=45
31 30 8:1 / /boot rw,relatime shared:9 - vfat /dev/sda1 rw,fmask=0022
32 22 8:17 / /boot-fallback rw shared:10 master:1 - vfat /dev/sdb1 rw
33 22 8:33 / /mnt/new\040esp rw - vfat /dev/sdc1 rw
34 22 8:34 / /mnt/mbr rw - vfat /dev/sdc2 rw
35 22 8:49 / /media/stick rw - vfat /dev/sdd1 rw
36 22 8:65 / /boot2 rw - ext4 /dev/sde1 rw
37 22 8:66 / /data rw - ext4 /dev/sde2 rw
38 22 11:0 / /iso ro - iso9660 /dev/sr0 ro
39 22 8:81 / /mnt/locked ro - vfat /dev/sdf1 ro
40 22 0:50 / /srv/far rw - nfs4 far:/srv rw
41 22 0:51 / /efi rw - tmpfs none rw
42 30 179:1 / /boot/firmware rw - vfat /dev/mmcblk0p1 rw
43 22 0:52 / /boot/far rw - nfs4 far:/boot rw
broken line
`
	files := []string{"/boot-fallback/EFI", "/boot2/grub/grub.cfg", "/iso/EFI", "/mnt/locked/EFI", "/srv/far/EFI", "/EFI"}
	udev := map[string]string{
		"/run/udev/data/b8:33": "N:sdc1\nE:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n",
		"/run/udev/data/b8:34": "E:ID_PART_ENTRY_TYPE=0xef\n",
		"/run/udev/data/b8:49": "E:ID_PART_ENTRY_TYPE=0xc\n",
	}
	exists := func(name string) bool {
		if name == "/srv/far/EFI" {
			t.Error("a server far away was asked, which may not answer")
		}
		return slices.Contains(files, name)
	}
	read := func(name string) ([]byte, error) {
		if s, ok := udev[name]; ok {
			return []byte(s), nil
		}
		return nil, errors.New("none")
	}
	if got, want := bootMounts(text, exists, read), []string{"/boot", "/boot-fallback", "/mnt/new esp", "/mnt/mbr", "/boot2", "/efi", "/boot/firmware"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
