package nixstore

import (
	"errors"
	"os"
	"strings"
	"testing"

	"narwharf/narinfo"
)

func TestResolve(t *testing.T) {
	base := shortDir(t)
	root := base + "/root"
	store := root + "/nix/store"
	p, other := pathInfo("/nix/store", "system").Path, pathInfo("/nix/store", "other").Path
	for _, dir := range []string{store + "/" + string(p) + "/sw", base + "/home/deep", base + "/real"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		base + "/home/result":                  "/nix/store/" + string(p),
		base + "/home/physical":                store + "/" + string(p),
		base + "/home/inside":                  "/nix/store/" + string(p) + "/sw/bin/tool",
		base + "/home/chain":                   "deep/../chain2",
		base + "/home/chain2":                  base + "/home/result",
		base + "/home/todir":                   "../real",
		base + "/real/result":                  "./../home/result",
		base + "/home/loop":                    "loop",
		base + "/home/dangling":                "nowhere",
		base + "/home/store":                   "/nix/store",
		base + "/alias":                        "root",
		store + "/" + string(other):            "/etc", // a store path that is a link
		base + "/home/up":                      base + "/real/..",
		base + "/home/current":                 base + "/profiles/system",
		base + "/home/notpath":                 "/nix/store/.links/x",
		store + "/" + string(p) + "/sw/onward": "/nix/store/" + string(other),
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(base+"/home/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	newFixtureIn(t, "/nix/store", root+"/nix/var/nix")
	t.Chdir(base + "/home")
	full := "/nix/store/" + string(p)
	// By way of a root that has a link in its name, too.
	for _, o := range []Options{{Root: root}, {Root: base + "/alias"}} {
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, c := range []struct {
			arg  string
			path narinfo.Path
			rest string
		}{
			{full, p, ""},
			{full + "/", p, ""},
			{full + "/sw/bin", p, "sw/bin"},
			{"//nix/./store//" + string(p) + "/./sw//bin/", p, "sw/bin"},
			{full + "/sw/../etc/os-release", p, "etc/os-release"},
			{full + "/../" + string(other) + "/x", other, "x"},
			{full + "/sw/onward", p, "sw/onward"},
			{full + "/%20?\n", p, "%20?\n"},
			{"/nix/store/" + string(other), other, ""},
			{"result", p, ""},
			{"./result", p, ""},
			{"result/", p, ""},
			{"result/bin/switch", p, "bin/switch"},
			{"physical/sw", p, "sw"},
			{"inside", p, "sw/bin/tool"},
			{"inside/../x", p, "sw/bin/x"},
			{"chain", p, ""},
			{"todir/result", p, ""},
			{"todir/../home/result", p, ""},
			{"up/home/result", p, ""},
			{"deep/../result", p, ""},
			{"store/" + string(p), p, ""},
			{base + "/home/result/sw", p, "sw"},
			{store + "/" + string(p) + "/sw", p, "sw"},
			{base + "/alias/nix/store/" + string(p), p, ""},
			{"../../../../../../../nix/store/" + string(p), p, ""},
		} {
			got, rest, err := s.Resolve(c.arg)
			if err != nil || got != c.path || rest != c.rest {
				t.Errorf("%q: %q, %q, %v; want %q, %q", c.arg, got, rest, err, c.path, c.rest)
			}
		}
		for _, c := range []struct{ arg, want string }{
			{"", "an empty string is no path"},
			{"file", "file is not in the local store; build it here or use --from-cache"},
			{"/", "/ is not in the local store; build it here or use --from-cache"},
			{"todir", "todir is not in the local store; build it here or use --from-cache"},
			{"missing", "missing does not exist (there is no " + base + "/home/missing)"},
			{"dangling", "dangling does not exist (there is no " + base + "/home/nowhere)"},
			{"current", "current does not exist (there is no " + base + "/profiles)"},
			{"file/x", "resolve file/x: readlink " + base + "/home/file/x: not a directory"},
			{"loop", "loop leads through more than 40 symbolic links"},
			{"/nix/store/..", "/nix/store/.. does not exist (there is no /nix)"},
			{full + "/..", full + "/.. is the store itself; name a path in it"},
			{"notpath", "notpath leads to what is no store path: store path name"},
			{"/nix/store/short", "/nix/store/short leads to what is no store path: store path name"},
		} {
			_, _, err := s.Resolve(c.arg)
			if c.arg == "/nix/store/.." {
				if _, e := os.Lstat("/nix"); e == nil {
					continue // this machine has a store of its own
				}
			}
			if err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%q: %v", c.arg, err)
			}
			if errors.Is(err, ErrNotValid) != strings.Contains(c.want, "is not in the local store") {
				t.Errorf("%q: %#v", c.arg, err)
			}
		}
	}
}
