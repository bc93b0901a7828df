package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"narwharf/narinfo"
)

var update = flag.Bool("update", false, "write docs/vectors anew")

const vectorDir = "../docs/vectors"

// The files in docs/vectors, which docs/formats.md describes.
type (
	keyVector struct {
		Name   string `json:"name"`
		Seed   string `json:"seed_hex"`
		Secret string `json:"secret"`
		Public string `json:"public"`
	}
	trustVector struct {
		Origin    string   `json:"origin"`
		Channel   string   `json:"channel"`
		Keys      []string `json:"keys"`
		Threshold int      `json:"threshold"`
	}
	releaseVector struct {
		Name     string          `json:"name"`
		Head     string          `json:"head"`
		Signed   string          `json:"signed_hex"`
		Signers  []string        `json:"signers"`
		Entries  []string        `json:"entries"`
		Leaves   []string        `json:"leaf_hashes_hex"`
		Root     Digest          `json:"root"`
		Release  *Release        `json:"release"`
		Pointers []pointerVector `json:"pointers"`
	}
	pointerVector struct {
		Target  string   `json:"target"`
		Pointer *Pointer `json:"pointer"`
	}
	manifestVector struct {
		Name     string       `json:"name"`
		Text     string       `json:"text"`
		Digest   Digest       `json:"digest"`
		StoreDir string       `json:"store_dir"`
		Root     narinfo.Path `json:"root"`
		Paths    int          `json:"paths"`
	}
	caseVector struct {
		What  string `json:"what"` // head entry envelope pointer release manifest
		Name  string `json:"name"`
		Valid bool   `json:"valid"`
		Text  string `json:"text,omitempty"`
		Hex   string `json:"hex,omitempty"` // instead of Text where that is not UTF-8
		// Other rules than the file's, if there are.
		Trust *trustVector `json:"trust,omitempty"`
		// What a valid head or entry says.
		Means json.RawMessage `json:"means,omitempty"`
		// For manifests.
		Root narinfo.Path `json:"root,omitempty"`
	}
	releasesFile struct {
		Trust    trustVector     `json:"trust"`
		Releases []releaseVector `json:"releases"`
	}
	casesFile struct {
		Trust  trustVector  `json:"trust"`
		Target string       `json:"target"`
		Cases  []caseVector `json:"cases"`
	}
)

func trustOf(t Trust) trustVector {
	v := trustVector{Origin: t.Origin, Channel: t.Channel, Keys: []string{}, Threshold: t.Threshold}
	for _, k := range t.Keys {
		v.Keys = append(v.Keys, k.String())
	}
	return v
}

func keyVectors(t *testing.T) (list []keyVector) {
	for _, name := range []string{alice, bob, carol} {
		seed, k := seedOf(name), testKey(t, name)
		list = append(list, keyVector{name, hex.EncodeToString(seed[:]), k.String(), k.Public().String()})
	}
	return list
}

func releaseVectors(t *testing.T) releasesFile {
	file := releasesFile{Trust: trustOf(testTrust(t, ""))}
	for _, v := range []struct {
		name    string
		signers []string
		targets []string
	}{
		{"one system for all", []string{alice, bob}, []string{"*"}},
		{"one target", []string{alice, carol}, []string{"db-1"}},
		{"two targets", []string{bob, carol}, []string{"db-1", "web-1"}},
		{"three targets", []string{alice, bob}, []string{"db-1", "role:web", "web-1"}},
		{"seven targets, all have signed", []string{alice, bob, carol}, []string{"DB-1", "a", "a-1", "a.b", "a1", "role:web", "z"}},
	} {
		r := testRelease(t, v.signers, v.targets...)
		out := releaseVector{Name: v.name, Head: string(r.Head.Payload), Signers: v.signers, Release: r, Signed: hex.EncodeToString(statement(HeadKind, r.Head.Payload))}
		for i, raw := range r.Entries {
			out.Entries = append(out.Entries, string(raw))
			leaf := sha256.Sum256(append([]byte{0}, raw...))
			out.Leaves = append(out.Leaves, hex.EncodeToString(leaf[:]))
			out.Pointers = append(out.Pointers, pointerVector{v.targets[i], testPointer(t, r, i)})
		}
		h, _, err := r.Check()
		if err != nil {
			t.Fatal(err)
		}
		out.Root = h.Targets.Root
		file.Releases = append(file.Releases, out)
	}
	return file
}

func manifestVectors(t *testing.T) (list []manifestVector) {
	for _, v := range []struct{ name, storeDir, system string }{
		{"the closure of db-1", "/nix/store", "nixos-system-db-1-25.11"},
		{"another store", "/srv/nix-2.x/store", "nixos-system-db-1-25.11"},
	} {
		m := testClosure(t, v.storeDir, v.system)
		list = append(list, manifestVector{v.name, string(m.Text()), m.Digest(), m.StoreDir, testPath(v.system), len(m.Lines)})
	}
	return list
}

// The vectors are what this package makes, byte for byte: a format that
// changes by accident changes a file here.
func TestVectorsAreWhatWeMake(t *testing.T) {
	for name, value := range map[string]any{
		"keys.json": keyVectors(t), "releases.json": releaseVectors(t), "manifests.json": manifestVectors(t), "cases.json": caseVectors(t),
	} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(value); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(vectorDir, name)
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, b.Bytes()) {
			t.Errorf("%s is not what the code makes; if a format was changed on purpose: go test ./signing -run Vectors -update", file)
		}
	}
}

func readVectors(t *testing.T, name string, value any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(vectorDir, name))
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(value); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func TestReleaseVectors(t *testing.T) {
	var file releasesFile
	readVectors(t, "releases.json", &file)
	if len(file.Releases) == 0 {
		t.Fatal("no releases")
	}
	for _, v := range file.Releases {
		h, entries, err := v.Release.Check()
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if h.Targets.Root != v.Root || string(v.Release.Head.Payload) != v.Head || len(entries) != len(v.Entries) {
			t.Errorf("%s: head or entries are others", v.Name)
		}
		if got := hex.EncodeToString(statement(HeadKind, []byte(v.Head))); got != v.Signed {
			t.Errorf("%s: signed are %s", v.Name, got)
		}
		trust := testTrust(t, "")
		if n := len(v.Release.Head.Signers(HeadKind, trust.Keys)); n != len(v.Signers) || n < trust.Threshold {
			t.Errorf("%s: %d signed", v.Name, n)
		}
		for i, p := range v.Pointers {
			if leaf := tlog.RecordHash([]byte(v.Entries[i])); hex.EncodeToString(leaf[:]) != v.Leaves[i] {
				t.Errorf("%s: leaf %d is %x", v.Name, i, leaf)
			}
			trust.Target = p.Target
			if trust.Target == Everyone {
				trust.Target = "any-host"
			}
			_, e, err := p.Pointer.Verify(trust)
			if err != nil || *e != entries[i] {
				t.Errorf("%s: pointer %d: %v", v.Name, i, err)
			}
		}
	}
}

func TestManifestVectors(t *testing.T) {
	var list []manifestVector
	readVectors(t, "manifests.json", &list)
	for _, v := range list {
		m, err := ParseManifest([]byte(v.Text), v.Digest, v.Root)
		if err != nil || m.StoreDir != v.StoreDir || len(m.Lines) != v.Paths || m.Digest() != v.Digest {
			t.Errorf("%s: %v", v.Name, err)
		}
	}
}

// A second implementation in Python, which shares nothing with this one, has
// to come to the same on every vector.
func TestVectorsInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal("python3 is missing, and NARWHARF_CI=1 wants every test run")
		}
		t.Skip("skipped: python3 is missing")
	}
	out, err := exec.Command(python, filepath.Join(vectorDir, "check.py")).CombinedOutput()
	if err != nil {
		t.Errorf("check.py: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func names(keys []PublicKey) (list []string) {
	for _, k := range keys {
		list = append(list, k.Name())
	}
	slices.Sort(list)
	return list
}
