package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"narwharf/narinfo"
)

// pathInfo is a made-up path with every field that follows from its name.
func pathInfo(storeDir, name string, refs ...narinfo.Path) *PathInfo {
	sum := sha256.Sum256([]byte(name))
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	hash := make([]byte, 32)
	for i := range hash {
		hash[i] = digits[sum[i]&31]
	}
	p := narinfo.Path(string(hash) + "-" + name)
	refs = slices.Clone(refs)
	slices.Sort(refs)
	return &PathInfo{
		Info: &narinfo.Info{
			StoreDir: storeDir, Path: p, NarHash: sum, NarSize: int64(sum[0])<<8 + 100,
			References: slices.Compact(refs), Deriver: p + ".drv",
			Sigs: []string{"cache-1:" + base64.StdEncoding.EncodeToString(append(sum[:], sum[:]...))},
		},
		Registered: time.Unix(1700000000+int64(sum[1]), 0),
	}
}

// pathInfos are n paths, each of which refers to up to refs earlier ones.
func pathInfos(storeDir string, n, refs int) []*PathInfo {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	infos := make([]*PathInfo, n)
	for i := range infos {
		var to []narinfo.Path
		for range min(i, refs) {
			to = append(to, infos[r.IntN(i)].Path)
		}
		infos[i] = pathInfo(storeDir, fmt.Sprintf("package-%d-1.2.3", i), to...)
	}
	return infos
}

// closureOf is the oracle: names of the closure in a model of the store.
func closureOf(infos []*PathInfo, roots ...narinfo.Path) []narinfo.Path {
	refs := map[narinfo.Path][]narinfo.Path{}
	for _, i := range infos {
		refs[i.Path] = i.References
	}
	seen := map[narinfo.Path]bool{}
	var visit func(narinfo.Path)
	visit = func(p narinfo.Path) {
		if !seen[p] {
			seen[p] = true
			for _, r := range refs[p] {
				visit(r)
			}
		}
	}
	for _, r := range roots {
		visit(r)
	}
	var all []narinfo.Path
	for p := range seen {
		all = append(all, p)
	}
	slices.Sort(all)
	return all
}

func names(infos []*narinfo.Info) []narinfo.Path {
	var all []narinfo.Path
	for _, i := range infos {
		all = append(all, i.Path)
	}
	return all
}

func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ns") // testing's own leaves no room for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func mustInfo(t testing.TB, c *Client, p narinfo.Path) *PathInfo {
	t.Helper()
	i, err := c.Info(context.Background(), p)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func same(t *testing.T, got, want *PathInfo) {
	t.Helper()
	if got.Ultimate != want.Ultimate || !got.Registered.Equal(want.Registered) || !reflect.DeepEqual(got.Info, want.Info) {
		t.Errorf("got  %+v %v %v\nwant %+v %v %v", got.Info, got.Ultimate, got.Registered, want.Info, want.Ultimate, want.Registered)
	}
}

// oddities are paths that show every field and every kind of name.
func oddities(storeDir string) []*PathInfo {
	plain := pathInfo(storeDir, "hello-2.12.1")
	plain.References = nil

	self := pathInfo(storeDir, "self", plain.Path)
	self.References = append(self.References, self.Path)
	slices.Sort(self.References)

	ca := pathInfo(storeDir, "content-addressed.tar.gz")
	ca.CA, ca.Deriver, ca.Sigs, ca.References = "fixed:r:sha256:"+ca.NarHash.Base32(), "", nil, nil

	built := pathInfo(storeDir, "built-here", self.Path, plain.Path)
	built.Ultimate, built.Sigs = true, nil

	signed := pathInfo(storeDir, "signed-twice", ca.Path)
	signed.Sigs = append(signed.Sigs, "another.example-2"+signed.Sigs[0][len("cache-1"):])
	slices.Sort(signed.Sigs)

	all := []*PathInfo{plain, self, ca, built, signed}
	for _, name := range []string{"a", ".hidden", "=?+_-.0", "x.drv", "-", strings.Repeat("n", 211)} {
		i := pathInfo(storeDir, name)
		i.References = nil
		if len(name) > 200 {
			i.Deriver = ""
		}
		all = append(all, i)
	}
	return all
}
