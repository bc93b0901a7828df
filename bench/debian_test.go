//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"narwharf/cache/nar"
)

func TestParsePackages(t *testing.T) {
	got := parsePackages("ii \tlibx:amd64\t1:2.0-1\t12\t, libc6 (>= 2.34), default-y | z:any, python3:any\n" +
		"rc \tremoved\t1\t9\t, \n" +
		"ii \tmeta\t1\t\t, \n" +
		"ii \tlone\t3\t7\t, \n")
	if len(got) != 2 {
		t.Fatalf("%d packages, want libx and lone", len(got))
	}
	x := got[0]
	if x.name != "libx:amd64" || x.version != "1:2.0-1" || x.size != 12<<10 || !slices.Equal(x.needs, []string{"libc6", "default-y", "python3"}) {
		t.Errorf("libx: %+v", x)
	}
	if got[1].name != "lone" || got[1].needs != nil {
		t.Errorf("lone: %+v", got[1])
	}
}

func TestChoose(t *testing.T) {
	var pkgs []*debPackage
	for i := range 100 {
		pkgs = append(pkgs, &debPackage{name: fmt.Sprint("p", i), size: 10 << 20})
		pkgs = append(pkgs, &debPackage{name: fmt.Sprint("small", i), size: 100})
	}
	pkgs = append(pkgs, &debPackage{name: "huge", size: maxPackage + 1})
	try := func(size int64, count int, find func(*debPackage) error) []*debPackage {
		t.Helper()
		chosen, err := choose(pkgs, size, count, find)
		if err != nil {
			t.Fatal(err)
		}
		return chosen
	}
	estimate := func(*debPackage) error { return nil }
	a := try(200<<20, 80, estimate)
	slices.Reverse(pkgs)
	if b := try(200<<20, 80, estimate); !slices.Equal(a, b) {
		t.Error("the choice depends on the order of the packages")
	}
	var sum int64
	for _, p := range a {
		sum += p.size
		if p.name == "huge" {
			t.Error("chose the huge one")
		}
	}
	if sum < 180<<20 || sum > 210<<20 || len(a) < 80 {
		t.Errorf("chose %d packages of %d bytes, want at least 80 of about 200 MiB", len(a), sum)
	}
	if all := try(1<<40, 1000, estimate); len(all) != 200 {
		t.Errorf("chose %d packages of 200 that fit", len(all))
	}

	wrong := errors.New("no such package")
	if _, err := choose(pkgs, 200<<20, 80, func(*debPackage) error { return wrong }); !errors.Is(err, wrong) {
		t.Errorf("error %v, want that of looking for the files", err)
	}
	// The estimate was far too low: the real size counts.
	if got := try(200<<20, 1, func(p *debPackage) error { p.size = maxPackage; return nil }); len(got) != 2 {
		t.Errorf("chose %d packages of 96 MiB for 200 MiB", len(got))
	}
}

func TestTopological(t *testing.T) {
	pkgs := []*debPackage{
		{name: "app:amd64", needs: []string{"lib", "libc", "absent", "lib"}},
		{name: "lib", needs: []string{"libc", "plugin"}},
		{name: "plugin", needs: []string{"lib", "plugin"}}, // a circle, and itself
		{name: "libc:amd64"},
	}
	order, needs := topological(pkgs)
	var names []string
	for _, p := range order {
		names = append(names, p.name)
	}
	if want := []string{"libc:amd64", "plugin", "lib", "app:amd64"}; !slices.Equal(names, want) {
		t.Fatalf("order %v, want %v", names, want)
	}
	if got, want := fmt.Sprint(needs), "[[] [] [0 1] [0 2]]"; got != want {
		t.Errorf("needs %s, want %s", got, want)
	}
}

func TestWriteNar(t *testing.T) {
	root := t.TempDir()
	in := func(name string) string { return filepath.Join(root, name) }
	err := errors.Join(
		os.MkdirAll(in("a-dir/empty"), 0o755),
		os.WriteFile(in("a-dir/run"), []byte("#!"), 0o755),
		os.WriteFile(in("a-dir.txt"), []byte("text"), 0o644),
		os.Symlink("a-dir", in("link")),
	)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	// As /bin, which is a link on the machine and has files below it in dpkg's list.
	if err := writeNar(&out, []string{in("link/run"), in("a-dir"), in("a-dir.txt"), in("a-dir/run"), in("a-dir/empty"), in("gone"), in("link")}); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := nar.NewReader(&out)
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := strings.CutPrefix("/"+e.Path, root+"/"); ok {
			got = append(got, fmt.Sprintf("%s %s %t %d", name, e.Type, e.Executable, e.Size))
		}
	}
	want := []string{
		"a-dir directory false 0", "a-dir/empty directory false 0", "a-dir/run regular true 2",
		"a-dir.txt regular false 4", "link directory false 0", "link/run regular true 2",
	}
	if !slices.Equal(got, want) {
		t.Errorf("entries\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
