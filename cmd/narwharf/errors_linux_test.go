package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func runAs(c *exec.Cmd, user *uint32) {
	if user != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: *user, Gid: *user}}
	}
}

// needRoot skips a test that needs root; where CI runs it has to be.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("NARWHARF_CI") == "1" {
		t.Fatal("this needs root")
	}
	t.Skip("this needs root")
}

// A data_dir of somebody else, one that cannot be written, one on a file system that is
// mounted read-only.
func TestForeignDataDir(t *testing.T) {
	needRoot(t)
	p := newProgram(t)
	config := p.write("config.toml", "listen = [\"127.0.0.1:0\"]\ndata_dir = \"data\"\n")
	want := func(name string, words ...string) {
		t.Helper()
		for _, args := range [][]string{{"serve", "--config", config}, {"token", "list", "--config", config}} {
			_, errs, exit := p.run(args...)
			for _, w := range words {
				if exit != 2 || !strings.Contains(errs, w) {
					t.Errorf("%s, %s: %d, no %q in %q", name, args[0], exit, w, errs)
				}
			}
		}
	}
	nobody, dir := uint32(65534), filepath.Join(p.dir, "data")
	p.user = &nobody
	want("it cannot be made", "nobody cannot make data_dir "+dir, "chown nobody "+dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want("another's", "belongs to root and this is nobody", "sudo -u root", "chown -R nobody "+dir)
	if err := errors.Join(os.Chown(dir, 65534, 65534), os.Chmod(dir, 0o555)); err != nil {
		t.Fatal(err)
	}
	want("not writable", "nobody owns data_dir "+dir+" and cannot write to it", "chmod -R u+rwX")
	p.user = nil
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o755), syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }()
	want("read-only", "mounted read-only")
}

// A data_dir that was used before and is not mounted is not made anew.
func TestUnmountedDataDir(t *testing.T) {
	needRoot(t)
	for _, below := range []string{"", "/narwharf/data"} {
		p := newProgram(t)
		disk := filepath.Join(p.dir, "disk")
		config := p.write("config.toml", "listen = [\"127.0.0.1:0\"]\ndata_dir = \"disk"+below+"\"\n")
		mount := func() {
			t.Helper()
			if err := errors.Join(os.MkdirAll(disk, 0o755), syscall.Mount("tmpfs", disk, "tmpfs", 0, "")); err != nil {
				t.Fatal(err)
			}
		}
		mount()
		defer func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) }()
		first, errs, exit := p.run("token", "new", "--config", config, "--name", "ci", "--scope", "push")
		if exit != 0 || first == "" {
			t.Fatal(errs)
		}
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"serve", "fsck", "rebuild"} {
			if _, errs, exit := p.run(command, "--config", config); exit != 2 || !strings.Contains(errs, "it was used before: is it mounted?") {
				t.Errorf("%s: %d, %q", command, exit, errs)
			}
		}
		if files, err := os.ReadDir(disk); err != nil || len(files) > 0 {
			t.Errorf("made anew: %v, %v", files, err)
		}
		note := filepath.Join(p.dir, ".disk.narwharf")
		if err := os.Remove(note); err != nil {
			t.Fatal(err)
		}
		if _, errs, exit := p.run("token", "list", "--config", config); exit != 0 {
			t.Errorf("begun anew on purpose: %s", errs)
		}
	}
}
