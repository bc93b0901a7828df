package signing

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"narwharf/narinfo"
)

// realNix runs one version of Nix on a store of its own.
type realNix struct {
	t   *testing.T
	nix string
	dir string
	env []string
}

func newRealNix(t *testing.T, version string) *realNix {
	t.Helper()
	nix := filepath.Join(os.Getenv("NARWHARF_NIX_DIR"), "bin", "nix-"+version)
	if _, err := os.Stat(nix); err != nil {
		missing := "needs Nix " + version + ": NARWHARF_NIX_DIR must name a directory with bin/nix-" + version
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	// Nix leaves the store without write permission, which TempDir cannot remove.
	t.Cleanup(func() { _ = exec.Command("chmod", "-R", "u+w", dir).Run() })
	// Nix 2.8 asks its build hook, which is not there, before it builds anything.
	hook := filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\necho '# decline-permanently' >&2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &realNix{t: t, nix: nix, dir: dir, env: append(os.Environ(),
		"HOME="+dir, "XDG_CACHE_HOME="+dir+"/cache", "NIX_CONF_DIR="+dir+"/etc", "NIX_STORE_DIR="+dir+"/store",
		"NIX_STATE_DIR="+dir+"/var", "NIX_LOG_DIR="+dir+"/log", "NIX_REMOTE=",
		"NIX_CONFIG=experimental-features = nix-command ca-derivations\nbuild-users-group =\nsandbox = false\nsubstituters =\nbuild-hook = "+hook+"\n")}
}

func (n *realNix) try(stdin string, args ...string) (stdout, stderr string, err error) {
	cmd := exec.Command(n.nix, args...)
	cmd.Env = n.env
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (n *realNix) run(stdin string, args ...string) string {
	n.t.Helper()
	out, errs, err := n.try(stdin, args...)
	if err != nil {
		n.t.Fatalf("nix %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

// closure builds a path that refers to itself, to two outputs of another
// derivation, to a content-addressed one and to a text file.
func (n *realNix) closure() narinfo.Path {
	n.t.Helper()
	out := n.run("", "build", "--no-link", "--json", "--impure", "--expr", `
		let
		  sh = name: script: extra: derivation ({
		    inherit name; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-euc" script ];
		  } // extra);
		  two = sh "two" "echo two > $out; echo $out > $dev" { outputs = [ "out" "dev" ]; };
		  ca = sh "ca" "echo ca > $out" { __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha256"; };
		in sh "top" "echo $out $two $dev $ca $text > $out" {
		  inherit ca; two = two.out; dev = two.dev; text = builtins.toFile "text" "text";
		}`)
	var built []struct{ Outputs map[string]string }
	if err := json.Unmarshal([]byte(out), &built); err != nil || len(built) != 1 {
		n.t.Fatalf("nix build printed %s: %v", out, err)
	}
	p, err := narinfo.ParsePath(n.dir+"/store", built[0].Outputs["out"])
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// infos reads every narinfo of a file:// cache, which must be in the one form
// that we print.
func (n *realNix) infos(cache string) map[narinfo.Path]*narinfo.Info {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(cache, "*.narinfo"))
	if err != nil {
		n.t.Fatal(err)
	}
	all := make(map[narinfo.Path]*narinfo.Info)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			n.t.Fatal(err)
		}
		i, err := narinfo.Parse(text)
		if err != nil {
			n.t.Fatalf("%v in\n%s", err, text)
		}
		if got := i.Append(nil); string(got) != string(text) {
			n.t.Errorf("Nix wrote\n%swe print\n%s", text, got)
		}
		if filepath.Base(f) != i.Path.Hash()+".narinfo" {
			n.t.Errorf("%s is about %s", f, i.Path)
		}
		all[i.Path] = i
	}
	if len(all) != 5 {
		n.t.Fatalf("%d narinfos, want 5", len(all))
	}
	return all
}

func eachNix(t *testing.T, f func(*testing.T, *realNix)) {
	for _, v := range []string{"2.8", "2.26", "2.34"} {
		t.Run(v, func(t *testing.T) { f(t, newRealNix(t, v)) })
	}
}

func TestNixKeys(t *testing.T) {
	eachNix(t, func(t *testing.T, n *realNix) {
		theirs := n.run("", "key", "generate-secret", "--key-name", "theirs-1")
		k := secretKey(t, theirs)
		if k.String() != strings.TrimSpace(theirs) {
			t.Errorf("Nix's key %q printed as %q", theirs, k.String())
		}
		ours, err := GenerateKey("ours-1")
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []SecretKey{k, ours} {
			if public := n.run(k.String(), "key", "convert-secret-to-public"); strings.TrimSpace(public) != k.Public().String() {
				t.Errorf("%s: Nix says the public key is %s, we %s", k.Name(), public, k.Public())
			}
		}
	})
}

// What `nix copy` signs on upload and what `nix store sign` signs in a store is
// byte for byte what SignInfo makes.
func TestNixSignsAsWeDo(t *testing.T) {
	eachNix(t, func(t *testing.T, n *realNix) {
		top := n.closure()
		upload, sign := secretKey(t, serverSecret), secretKey(t, ciSecret)
		uploadFile, signFile := filepath.Join(n.dir, "upload.sec"), filepath.Join(n.dir, "sign.sec")
		write(t, uploadFile, upload.String())
		write(t, signFile, sign.String())
		n.run("", "store", "sign", "-k", signFile, "-r", top.In(n.dir+"/store"))
		cache := filepath.Join(n.dir, "bin-cache")
		n.run("", "copy", "--to", "file://"+cache+"?compression=none&secret-key="+uploadFile, top.In(n.dir+"/store"))
		self := false
		for p, i := range n.infos(cache) {
			unsigned := i.Clone()
			unsigned.Sigs = nil
			if got := signInfo(unsigned, []SecretKey{upload, sign}); !slices.Equal(got, i.Sigs) {
				t.Errorf("%s: we sign %q\nNix signed %q\nfingerprint %s", p, got, i.Sigs, i.AppendFingerprint(nil))
			}
			for _, s := range i.Sigs {
				if !upload.Public().Verify(i.AppendFingerprint(nil), s) && !sign.Public().Verify(i.AppendFingerprint(nil), s) {
					t.Errorf("%s: %s does not verify", p, s)
				}
			}
			if p == top {
				self = len(i.References) == 5 && slices.Contains(i.References, top)
			}
		}
		if !self {
			t.Error("the closure is not as meant: the top refers to itself and four others")
		}
	})
}

// `nix store verify` takes our signature and refuses it over anything else.
func TestNixVerifiesOurSignatures(t *testing.T) {
	eachNix(t, func(t *testing.T, n *realNix) {
		top := n.closure()
		cache := filepath.Join(n.dir, "bin-cache")
		n.run("", "copy", "--to", "file://"+cache+"?compression=none", top.In(n.dir+"/store"))
		ours, err := GenerateKey("narwharf-test-1")
		if err != nil {
			t.Fatal(err)
		}
		infos := n.infos(cache)
		store := func(i *narinfo.Info) {
			write(t, filepath.Join(cache, i.Path.Hash()+".narinfo"), string(i.Append(nil)))
		}
		verify := func() (string, error) {
			_, stderr, err := n.try("", "store", "verify", "--store", "file://"+cache, "-r",
				"--trusted-public-keys", ours.Public().String(), "--sigs-needed", "1", top.In(n.dir+"/store"))
			return stderr, err
		}
		for _, i := range infos {
			if len(i.Sigs) != 0 {
				t.Fatalf("%s is signed already", i.Path)
			}
			i.Sigs = signInfo(i, []SecretKey{ours})
			store(i)
		}
		if stderr, err := verify(); err != nil {
			t.Fatalf("Nix refuses our signatures: %v\n%s", err, stderr)
		}
		for what, change := range map[string]func(*narinfo.Info){
			"no signature":     func(i *narinfo.Info) { i.Sigs = nil },
			"a reference less": func(i *narinfo.Info) { i.References = i.References[1:] },
			"another's signature": func(i *narinfo.Info) {
				other := i.Clone()
				other.Path += "x"
				other.Sigs = nil
				i.Sigs = signInfo(other, []SecretKey{ours})
			},
		} {
			bad := infos[top].Clone()
			change(bad)
			store(bad)
			stderr, err := verify()
			if err == nil || !strings.Contains(stderr, "is untrusted") {
				t.Errorf("%s: Nix says %v\n%s", what, err, stderr)
			}
			if _, ok := VerifyAny(bad.AppendFingerprint(nil), bad.Sigs, []PublicKey{ours.Public()}); ok {
				t.Errorf("%s: we accept it", what)
			}
		}
		store(infos[top])
		if stderr, err := verify(); err != nil {
			t.Errorf("Nix refuses the good one put back: %v\n%s", err, stderr)
		}
	})
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
