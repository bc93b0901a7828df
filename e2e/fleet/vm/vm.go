package vm

import (
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"narwharf/e2e/fleet"
)

// Sizes of a machine's disks in bytes. Two kernels fit into the EFI system partition, and with them
// what a full one is filled with.
const (
	espSize   = 96 << 20
	rootSize  = 1 << 30
	storeSize = 1 << 30
)

// New makes a fleet whose only host h1 is a virtual machine, installed and not booted. Options are
// those of [fleet.New], where Hosts and Off are not asked; the systems that the fleet's CI builds are
// such that boot (nixos/toplevel.nix). It takes ten seconds, and some more once for the parts.
func New(t testing.TB, options fleet.Options) (*fleet.Fleet, *Host) {
	t.Helper()
	if os.Getenv("NARWHARF_FLEET") != "1" {
		t.Skip("boots a machine: runs with NARWHARF_FLEET=1")
	}
	if testing.Short() {
		t.Skip("slow: runs without -short")
	}
	if os.Getuid() != 0 {
		fleet.Lacking(t, "machines are booted by root: run as root")
	}
	dir, err := parts()
	if err != nil {
		fleet.Lacking(t, "%v", err)
	}
	system, host := options.System, options.Host
	options.Hosts, options.Off = 1, true
	var once sync.Once
	options.System = func(f *fleet.Fleet) fleet.System {
		once.Do(func() { teach(f, dir) })
		if system == nil {
			return fleet.System{Version: "0"}
		}
		return system(f)
	}
	options.Host = func(f *fleet.Fleet, name string, o *fleet.HostOptions) {
		o.BootSize = espSize
		for name, text := range tree(t, dir) {
			o.Files[name] = text
		}
		if host != nil {
			host(f, name, o)
		}
	}
	f := fleet.New(t, options)
	h := &Host{m: &machine{fleet: f, dir: f.Host("h1").Dir(), parts: dir}}
	h.Host = f.Host("h1").Over(h.m.call)
	if err := h.m.make(); err != nil {
		t.Fatalf("make the machine's disks: %v", err)
	}
	t.Cleanup(func() { h.For(t).saveLogs() })
	return f, h
}

// teach replaces what the fleet's CI builds systems from.
func teach(f *fleet.Fleet, parts string) {
	f.T.Helper()
	ci := f.CI()
	ci.Must("mv", "/fleet/toplevel.nix", "/fleet/plain.nix")
	ci.Must("sed", "-i", "s/timeout 1/timeout 0/", "/fleet/install-bootloader.sh") // a second for a person to choose in
	ci.WriteFile("/fleet/toplevel.nix", script("nixos/toplevel.nix"), 0o644)
	ci.WriteFile("/fleet/vm/install-bootloader.sh", script("nixos/install-bootloader.sh"), 0o644)
	for _, name := range []string{"kernel", "initrd"} {
		ci.WriteFile("/fleet/vm/"+name, part(f.T, filepath.Join(parts, name)), 0o644)
	}
}

// slow are units and generators of Debian's that do nothing for a host and take their time where
// every instruction is emulated. An empty file masks them.
var slow = []string{
	"system/systemd-logind.service", "system/systemd-networkd.service", "system/systemd-networkd.socket", "system/systemd-network-generator.service",
	"system/systemd-firstboot.service", "system/systemd-sysusers.service", "system/systemd-tmpfiles-clean.timer", "system/systemd-ask-password-wall.path",
	"system/systemd-ask-password-console.path", "system/modprobe@.service", "system/systemd-modules-load.service", "system/systemd-machine-id-commit.service",
	"system/systemd-update-utmp.service", "system/systemd-update-utmp-runlevel.service", "system/sys-kernel-debug.mount", "system/sys-kernel-tracing.mount",
	"system/dev-hugepages.mount", "system/dev-mqueue.mount", "system/systemd-initctl.socket", "system/systemd-fsckd.socket", "system/systemd-sysctl.service",
	"system/systemd-random-seed.service", "system/systemd-user-sessions.service", "system/systemd-pcrphase.service", "system/systemd-pcrphase-sysinit.service",
	"system-generators/systemd-cryptsetup-generator", "system-generators/systemd-debug-generator", "system-generators/systemd-fstab-generator",
	"system-generators/systemd-getty-generator", "system-generators/systemd-gpt-auto-generator", "system-generators/systemd-hibernate-resume-generator",
	"system-generators/systemd-integritysetup-generator", "system-generators/systemd-rc-local-generator", "system-generators/systemd-run-generator",
	"system-generators/systemd-system-update-generator", "system-generators/systemd-sysv-generator", "system-generators/systemd-veritysetup-generator",
}

// tree is what a machine's tree has beside a host's.
func tree(t testing.TB, parts string) map[string]string {
	t.Helper()
	files := map[string]string{
		"usr/local/lib/fleet/stage-2!": script("guest/stage-2"),
		"usr/local/lib/fleet/hold!":    script("guest/hold"),
		"usr/local/lib/fleet/exec!":    script("guest/exec"),
		"etc/systemd/system/exec.socket": "[Unit]\nDescription=The harness's way in\n\n" +
			"[Socket]\nListenStream=10.0.2.15:2222\nAccept=yes\nMaxConnections=64\n",
		// A program that was killed is no failed unit of the host.
		"etc/systemd/system/exec@.service": "[Unit]\nDescription=A program of the harness\nCollectMode=inactive-or-failed\n\n" +
			"[Service]\nExecStart=-/usr/local/lib/fleet/exec\nStandardInput=socket\nStandardError=null\n",
		"etc/systemd/system/up.service": "[Unit]\nDescription=Tells the harness of a boot\nDefaultDependencies=no\nAfter=multi-user.target\n\n" +
			"[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'echo \"fleet: up $(cat /proc/sys/kernel/random/boot_id)\" > /dev/console'\n",
		"etc/systemd/system/multi-user.target.d/vm.conf": "[Unit]\nWants=exec.socket up.service\n",
	}
	// A boot that comes up takes its entry's counter away. No udev links the partition to its number.
	files["etc/systemd/system/systemd-bless-boot.service.d/vm.conf"] = "[Service]\nEnvironment=SYSTEMD_RELAX_ESP_CHECKS=1\n"
	for name, to := range map[string]string{
		"systemd-bless-boot": "usr/lib/systemd/systemd-bless-boot!", "systemd-bless-boot.service": "etc/systemd/system/systemd-bless-boot.service",
		"systemd-bless-boot-generator": "usr/lib/systemd/system-generators/systemd-bless-boot-generator!", "kexec/kexec": "usr/sbin/kexec!",
	} {
		files[to] = part(t, filepath.Join(parts, name))
	}
	libraries, err := filepath.Glob(filepath.Join(parts, "kexec", "*.so.*"))
	if err != nil || len(libraries) == 0 {
		t.Fatalf("no libraries of kexec: %v", err)
	}
	for _, name := range libraries {
		files["usr/lib/x86_64-linux-gnu/"+filepath.Base(name)] = part(t, name)
	}
	for _, name := range slow {
		files["etc/systemd/"+name] = ""
	}
	return files
}

func part(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func size(n int64) string { return strconv.FormatInt(n, 10) }
