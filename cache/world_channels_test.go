package cache

import (
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"narwharf/narinfo"
)

func TestPeek(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{"nixos-version": "25.11", "system": "x86_64-linux", "large": strings.Repeat("x", 1000), "kernel": "-> /nix/store/x/bzImage"}
	p := packUpload(t, "p", narOf(t, files), "zstd")
	w.putAll(p)
	got, err := w.channels.Peek(p.info.Path.Hash(), []string{"nixos-version", "large", "kernel", "missing", ""}, 100)
	want := map[string][]byte{"nixos-version": []byte("25.11"), "large": nil, "kernel": []byte("/nix/store/x/bzImage"), "": nil}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	info, _, by, err := w.channels.Info(p.info.Path.Hash())
	if err != nil || by != "ci" || !w.hasBytes(info) {
		t.Errorf("%v by %q, %v", info, by, err)
	}
	w.damage(p, func(b []byte) []byte { return b[:len(b)-5] })
	if w.hasBytes(info) {
		t.Error("a cut NAR counts as whole")
	}
	if _, err := w.channels.Peek(p.info.Path.Hash(), []string{"nixos-version"}, 100); err == nil {
		t.Error("a cut NAR can be read")
	}
	if _, err := w.channels.Peek(someHash, nil, 100); err == nil {
		t.Error("a missing path can be read")
	}
	if _, _, _, err := w.channels.Info(someHash); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a missing path has a narinfo")
	}
}

func (w *world) hasBytes(info *narinfo.Info) bool {
	w.t.Helper()
	there, err := w.channels.HasBytes(info)
	if err != nil {
		w.t.Error(err)
	}
	return there
}
