package fleet

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stat is /proc/<pid>/stat behind the program's name: state, parent, ….
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, rest, ok := cutLast(string(text), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return nil, fmt.Errorf("read /proc/%d/stat: %q", pid, text)
	}
	return fields, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// startTime is when a process started, in ticks since boot: with its id it names a process for good.
func startTime(pid int) (string, error) {
	fields, err := stat(pid)
	if err != nil {
		return "", err
	}
	return fields[19], nil
}

// processes are the ids of all processes.
func processes() ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// children are the processes whose parent is pid.
func children(pid int) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var found []int
	for _, p := range all {
		if fields, err := stat(p); err == nil && fields[1] == strconv.Itoa(pid) {
			found = append(found, p)
		}
	}
	return found, nil
}

// firstOfNamespace reports whether a process is the first of a process namespace `deep` levels below
// the one that /proc shows.
func firstOfNamespace(pid, deep int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(text), "\n") {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(ids)
			return len(f) == deep+1 && f[deep] == "1"
		}
	}
	return false
}

// hierarchies are the mount points of the control group hierarchies that systemd keeps its services
// in: the one of v2, that with the name systemd of v1, or both.
func hierarchies() ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []string
	seen := map[string]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		mount, kind := strings.Fields(before), strings.Fields(after)
		if len(mount) < 5 || len(kind) < 3 || seen[mount[2]] {
			continue
		}
		if kind[0] == "cgroup2" || kind[0] == "cgroup" && strings.Contains(","+kind[2]+",", ",name=systemd,") {
			seen[mount[2]] = true
			found = append(found, mount[4])
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no control groups on this machine: mount cgroup2 at /sys/fs/cgroup")
	}
	return found, lines.Err()
}
