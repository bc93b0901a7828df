package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// findings are what narwharf doctor says, by check.
type findings map[string]struct {
	Check, Level, Text string
	Type               []string
}

// diagnose reads a report, whose exit status has to fit what it says.
func diagnose(t testing.TB, out Output) findings {
	t.Helper()
	var r struct {
		Findings []struct {
			Check, Level, Text string
			Type               []string
		}
	}
	if err := json.Unmarshal([]byte(out.Stdout), &r); err != nil {
		t.Fatalf("%v\n%v", err, out)
	}
	f, code := findings{}, 0
	for _, one := range r.Findings {
		if was, twice := f[one.Check]; !twice || was.Level != "fault" {
			f[one.Check] = one
		}
		if one.Level == "fault" {
			code = 1
			if len(one.Type) == 0 {
				t.Errorf("%s is at fault, and there is nothing to type: %s", one.Check, one.Text)
			}
		}
	}
	if out.Code != code {
		t.Errorf("exit %d, and should be %d\n%v", out.Code, code, out)
	}
	return f
}

// faults are the checks that found one, which have to be these.
func (f findings) faults(t testing.TB, want ...string) {
	t.Helper()
	var is []string
	for name, one := range f {
		if one.Level == "fault" {
			is = append(is, name)
		}
	}
	slices.Sort(is)
	slices.Sort(want)
	if !slices.Equal(is, want) {
		t.Errorf("at fault are %q, and should be %q: %+v", is, want, f)
	}
}

// doctor looks as the client's own user.
func (n *Nix) doctor(s *Server, url string) findings {
	n.T.Helper()
	return diagnose(n.T, n.narwharf(s, "doctor", "client", url, "--json"))
}

// narwharf runs a command as the client's own user, with its programs.
func (n *Nix) narwharf(s *Server, args ...string) Output {
	n.T.Helper()
	env := append(n.env(), "PATH="+filepath.Join(nixDir(), n.Suite, "bin")+":"+os.Getenv("PATH"))
	return run(n.T, program{argv: s.argv(args...), env: env, dir: n.dir})
}

// What a proxy in front does to uploads, to 404s and to ranges is found out for real, and with the block
// of docs/operating.md there is nothing to find.
func TestDoctorBehindProxies(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	n := NewNix(t, newest()).Trust(s.URL(), s.Key)
	way := []string{"clock", "kept-404", "ranges", "upload-buffering", "upload-size"}
	look := func(t *testing.T, url string, want ...string) {
		t.Helper()
		f := n.doctor(s, url)
		for _, check := range way {
			if is := f[check].Level == "fault"; is != slices.Contains(want, check) {
				t.Errorf("%s: %+v", check, f[check])
			}
		}
		if len(want) == 0 && (f["kept-404"].Level != "ok" || f["ranges"].Level != "ok" || f["upload-buffering"].Level != "ok") {
			t.Errorf("%+v", f)
		}
	}
	look(t, s.URL())
	for _, program := range append(WebProxies, "varnish") {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			look(t, StartWebProxy(t, program, s.Addr()))
		})
	}
	for name, c := range map[string]struct {
		edit func(block string) string
		want string
	}{
		"collects": {func(b string) string { return strings.Replace(b, "proxy_request_buffering off;", "", 1) }, "upload-buffering"},
		"a limit":  {func(b string) string { return strings.Replace(b, "client_max_body_size 0;", "", 1) }, "upload-size"},
		"keeps 404s": {func(b string) string {
			return "proxy_cache_path kept keys_zone=kept:1m;\n" + strings.Replace(b, "proxy_pass", "proxy_cache kept; proxy_cache_valid 404 10m; proxy_ignore_headers Cache-Control;\nproxy_pass", 1)
		}, "kept-404"},
		"drops ranges": {func(b string) string {
			return strings.Replace(b, "proxy_pass", `proxy_set_header Range ""; proxy_pass`, 1)
		}, "ranges"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			look(t, startWebProxy(t, "nginx", s.Addr(), c.edit), c.want)
		})
	}
}

// A user without nix-daemon: each fault is made, Nix fails by it, the doctor names it, what the doctor
// says is typed, and Nix works.
func TestDoctorAndUse(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		path := c.Path("b")
		s := NewServer(t, nil)
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", path)

		n := NewNix(t, suite)
		fails := func(check ...string) {
			t.Helper()
			n.Fails(nil, "nix-store", "--realise", path)
			n.doctor(s, s.URL()).faults(t, check...)
			n.Forget() // what it noted meanwhile
		}
		fails("signature", "substituter")
		n.Set("substituters = "+s.URL(), "trusted-public-keys = "+NewKey("other-1").Public())
		fails("signature")
		old := NewKey(s.Key.Name)
		n.Set("trusted-public-keys = " + old.Public())
		n.doctor(s, s.URL()).faults(t, "signature")
		if text := n.doctor(s, s.URL())["signature"].Text; !strings.Contains(text, "another key by the name of") {
			t.Error(text)
		}
		n.Set("trusted-public-keys = ", "substitute = false")
		n.doctor(s, s.URL()).faults(t, "signature", "substituter")
		n.conf = n.conf[:len(n.conf)-1]
		n.Set("substituters = ")
		if out := n.narwharf(s, "use", s.URL()); out.Code != 0 {
			t.Fatal(out)
		}
		n.doctor(s, s.URL()).faults(t)
		n.Must("nix-store", "--realise", path)
		if !n.Has(path) {
			t.Error("it is not there")
		}
		probe := "/nix/store/narwharfnarwharfnarwharfnarwharf-probe"
		n.Must("nix-store", "--realise", probe)
		n.Verify()
	})
}

// A cache that takes a token, and the netrc that Nix does not read.
func TestDoctorNetrc(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		path := c.Path("c")
		s := NewServer(t, func(c *Config) { c.Anonymous = []string{} })
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", path)
		token := s.Token("reader", "pull")
		n := NewNix(t, suite).Trust(s.URL(), s.Key)
		n.doctor(s, s.URL()).faults(t, "netrc")
		home := strings.TrimPrefix(n.env()[2], "HOME=")
		n.write(strings.TrimPrefix(home, n.dir+"/")+"/.netrc", "machine 127.0.0.1 login x password "+token+"\n")
		n.Fails(nil, "nix-store", "--realise", path)
		f := n.doctor(s, s.URL())
		f.faults(t, "netrc")
		if !strings.Contains(f["netrc"].Text, ".netrc has a password for 127.0.0.1, but Nix does not read it") {
			t.Error(f["netrc"].Text)
		}
		n.Netrc("nwt_0000000000000000000000000000000000000000000")
		f = n.doctor(s, s.URL())
		f.faults(t, "netrc")
		if !strings.Contains(f["netrc"].Text, "refuses the password") {
			t.Error(f["netrc"].Text)
		}
		n.conf = n.conf[:len(n.conf)-1] // the netrc-file
		n.Set()
		n.Forget()
		tokenFile := n.write("reader.token", token)
		if out := n.narwharf(s, "use", s.URL(), "--netrc", "--token-file", tokenFile); out.Code != 0 || strings.Contains(out.String(), token) {
			t.Fatal(out)
		}
		n.doctor(s, s.URL()).faults(t)
		n.Must("nix-store", "--realise", path)
	})
}

// What a pusher's Nix remembers without the cache's signature is found, and the first line to type helps.
func TestDoctorPusher(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		path := c.Path("c")
		s := NewServer(t, nil)
		n := NewNix(t, suite).Netrc(s.Token("ci", "push")).Trust(s.URL(), s.Key)
		n.Must("nix", "copy", "--no-check-sigs", "--from", "local?root="+c.Root, path)
		n.doctor(s, s.URL()).faults(t)
		n.Push(s.URL(), "?compression=zstd", path)
		n.Must("nix-store", "--delete", path)
		n.Fails(nil, "nix-store", "--realise", path)
		f := n.doctor(s, s.URL())
		f.faults(t, "memory")
		line := f["memory"].Type[0]
		if !strings.HasSuffix(line, path) {
			t.Fatal(line)
		}
		n.Shell(line)
		if !n.Has(path) {
			t.Error("it is not there")
		}
		n.doctor(s, s.URL()).faults(t)
	})
}

// A user whom nix-daemon does not trust: what he configures does nothing, and the doctor says so; root's
// line helps, once the daemon has begun anew.
func TestDoctorDaemon(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		path := c.Path("c")
		s := NewServer(t, nil)
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", path)
		d := NewDaemon(t, suite)
		d.Start()
		home := d.Home()
		conf := filepath.Join(home, ".config", "nix", "nix.conf")
		if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(conf, []byte("extra-substituters = "+s.URL()+"\nextra-trusted-public-keys = "+s.Key.Public()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		realise := func() Output { return d.As(home, nil, "nix-store", "--realise", path) }
		doctor := func() findings {
			t.Helper()
			return diagnose(t, d.As(home, nil, s.argv("doctor", "client", s.URL(), "--json")...))
		}
		if out := realise(); out.Code == 0 {
			t.Fatal(out)
		}
		f := doctor()
		f.faults(t, "signature", "substituter")
		if !strings.Contains(f["substituter"].Text, "nix-daemon does not trust nobody") || !strings.Contains(f["substituter"].Type[0], "sudo narwharf use") {
			t.Error(f["substituter"])
		}
		if out := d.As(home, nil, s.argv("use", s.URL())...); out.Code != 2 || !strings.Contains(out.Stderr, "sudo narwharf use") {
			t.Error(out)
		}
		if out := d.narwharf(s, "use", s.URL()); out.Code != 0 {
			t.Fatal(out)
		}
		f = doctor()
		f.faults(t, "nix-daemon")
		if out := realise(); out.Code == 0 {
			t.Errorf("a daemon that has not read its configuration: %v", out)
		}
		d.Stop()
		d.Start()
		doctor().faults(t)
		if out := realise(); out.Code != 0 {
			t.Error(out)
		}
	})
}
