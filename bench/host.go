//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// hostFacts describes the machine without naming it.
func hostFacts(dir string, n *nginx) []string {
	model := "unknown CPU"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	var info unix.Sysinfo_t
	memory := "unknown"
	if unix.Sysinfo(&info) == nil {
		memory = fmt.Sprintf("%.0f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))
	}
	return []string{
		fmt.Sprintf("%d cores (%s), %s of memory, shared by the servers and the load generator; files on %s, TCP congestion control %s",
			runtime.NumCPU(), model, memory, fsName(dir), sysText("/proc/sys/net/ipv4/tcp_congestion_control")),
		fmt.Sprintf("Linux %s, %s, nginx %s (%d workers, sendfile, tcp_nopush, no access log; without `open_file_cache` unless said)",
			kernelSeries(), runtime.Version(), n.version, runtime.NumCPU()),
		fmt.Sprintf("other work on the machine: load average %s when this began (0 is an idle machine)", loadAverage()),
	}
}

// kernelSeries is the kernel's version without what a builder appended.
func kernelSeries() string {
	release := sysText("/proc/sys/kernel/osrelease")
	version, _, _ := strings.Cut(release, "-")
	return version
}

// loadAverage is that of the last minute.
func loadAverage() string {
	minute, _, _ := strings.Cut(sysText("/proc/loadavg"), " ")
	return minute
}

func sysText(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

func fsName(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return "an unknown file system"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
		unix.TMPFS_MAGIC: "tmpfs (so fsync costs nothing)", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", 0x2fc12fc1: "zfs",
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", st.Type)
}

// needDisk refuses to start what would fill the disk.
func needDisk(dir string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%s has %s free, and the benchmark needs %s: name another folder with -work", dir, mib(free), mib(need))
	}
	return nil
}

// revision is the commit that is measured, with a plus if files were changed.
func revision() string {
	if os.Getenv("NARWHARF_BIN") != "" {
		return "unknown (a binary named by NARWHARF_BIN)"
	}
	out, err := exec.Command("git", "describe", "--always", "--exclude=*", "--dirty=+").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
