package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Stock Nix over our own TLS with a private authority, up and down, of a private cache; and not
// without the authority. It speaks HTTP/2 where Nix does.
func TestTLS(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		ca := NewAuthority(t)
		s := NewServer(t, func(c *Config) { c.TLS, c.Anonymous = ca, []string{} })
		push, pull := s.Token("ci", "push"), s.Token("host", "pull")
		paths := c.Everything()
		up := NewNix(t, suite).In(c.Root).Netrc(push)
		up.CA = ca.File
		up.Push(s.URL(), "?compression=zstd", paths...)
		s.Fsck()

		down := NewNix(t, suite).Netrc(pull).Trust(s.URL(), s.Key)
		down.CA = ca.File
		down.Must("nix-store", append([]string{"--realise"}, paths...)...)
		down.Verify()

		a := c.Path("a")
		NewNix(t, suite).Netrc(pull).Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", a)
		if named := NewNix(t, suite).Netrc(pull).Trust(s.URL(), s.Key); named.AtLeast(2, 26) {
			named.Set("ssl-cert-file = " + ca.File)
			named.Must("nix-store", "--realise", a)
		}
	})
}

// What a server with TLS says of itself, and to who speaks none.
func TestTLSGreets(t *testing.T) {
	t.Parallel()
	ca := NewAuthority(t)
	s := NewServer(t, func(c *Config) { c.TLS = ca })
	text, err := os.ReadFile(s.Log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "Narwharf serves "+s.URL()+"\n") {
		t.Errorf("the server says\n%s", text)
	}
	resp, err := http.Get("http" + strings.TrimPrefix(s.URL(), "https") + "/nix-cache-info")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(body), "HTTPS") {
		t.Errorf("without TLS: %d %s", resp.StatusCode, body)
	}
	// Commands.
	token := s.Token("op", "operate")
	file := s.Dir + "/op.token"
	s.writeFile(file, token, 0o600)
	ask := func(env ...string) Output {
		return run(t, program{argv: []string{s.bin, "hosts", "--server", s.URL(), "--token-file", file}, env: append(os.Environ(), env...), dir: s.Dir})
	}
	if out := ask("NARWHARF_CA_FILE=" + ca.File); out.Code != 0 {
		t.Errorf("with the authority in the environment: %v", out)
	}
	if out := ask(); out.Code == 0 || !strings.Contains(out.Stderr, "--ca-file") {
		t.Errorf("without the authority: %v", out)
	}
}

// Another certificate while the server is at work: no request fails, who comes then sees the new one,
// and what is of no use changes nothing.
func TestTLSReload(t *testing.T) {
	t.Parallel()
	ca := NewAuthority(t)
	s := NewServer(t, func(c *Config) { c.TLS = ca })
	token := s.Token("ci", "push", "promote:web")

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var asked atomic.Int64
	for i := range 4 {
		h2, fresh := i%2 == 0, i < 2
		transport := &http.Transport{TLSClientConfig: ca.Client(), ForceAttemptHTTP2: h2, DisableKeepAlives: fresh}
		defer transport.CloseIdleConnections()
		client := &http.Client{Transport: transport, Timeout: 20 * time.Second}
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Get(s.URL() + "/nix-cache-info")
				if err != nil {
					t.Errorf("a request failed (HTTP/2: %v, new connections: %v): %v", h2, fresh, err)
					return
				}
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("%d %v", resp.StatusCode, err)
				}
				asked.Add(1)
			}
		})
	}
	// An upload that takes all the time.
	p := NewPath("slow", RandomNAR(7, 400<<10))
	doc, file := Describe(t, p, "/nix/store", "zstd")
	slow := &slowReader{left: file, ctx: ctx}
	wg.Go(func() {
		req, err := http.NewRequest("PUT", s.URL()+"/"+doc.URL, slow)
		if err != nil {
			t.Error(err)
			return
		}
		req.ContentLength = int64(len(file))
		req.SetBasicAuth("e2e", token)
		resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: ca.Client()}}).Do(req)
		if err != nil {
			t.Errorf("the upload: %v", err)
			return
		}
		_ = resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Errorf("the upload: %d", resp.StatusCode)
		}
	})

	before := s.shownSerial(ca)
	ca.Issue("server") // both files, one after the other
	for end := time.Now().Add(20 * time.Second); s.shownSerial(ca) == before; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the old certificate is still shown\n%s", s.LogTail())
		}
	}
	// By SIGHUP, at once.
	before = s.shownSerial(ca)
	ca.Issue("server")
	s.Signal(syscall.SIGHUP)
	for end := time.Now().Add(3 * time.Second); s.shownSerial(ca) == before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("SIGHUP: the old certificate is still shown\n%s", s.LogTail())
		}
	}
	// What does not fit together.
	before = s.shownSerial(ca)
	cert, _ := ca.server()
	s.writeFile(cert, "-----BEGIN CERTIFICATE-----\n", 0o600)
	for end := time.Now().Add(30 * time.Second); !strings.Contains(s.LogTail(), "the old certificate stays in use"); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nobody was told of a certificate that is none\n%s", s.LogTail())
		}
	}
	if s.shownSerial(ca) != before {
		t.Error("another certificate is shown")
	}
	ca.Issue("server")
	cancel()
	wg.Wait()
	if n := asked.Load(); n < 100 {
		t.Errorf("only %d requests were made meanwhile", n)
	}
	if page := s.Metrics(); !strings.Contains(page, "narwharf_tls_certificate_ends_seconds ") {
		t.Error("/metrics does not say when the certificate ends")
	}
}

// slowReader is a body that comes in small pieces until ctx ends, and then at once.
type slowReader struct {
	left []byte
	ctx  context.Context
}

func (r *slowReader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(r.left))
	if r.ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		n = min(n, 64, max(1, len(r.left)/2))
	}
	copy(p, r.left[:n])
	r.left = r.left[n:]
	return n, nil
}

// shownSerial is the number of the certificate that a new connection is shown.
func (s *Server) shownSerial(ca *Authority) string {
	s.T.Helper()
	transport := &http.Transport{TLSClientConfig: ca.Client(), DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get(s.URL() + "/healthz")
	if err != nil {
		s.T.Fatal(err)
	}
	_ = resp.Body.Close()
	return fmt.Sprint(resp.TLS.PeerCertificates[0].SerialNumber)
}

// Clients with a certificate of a private authority: commands, hosts that wait, and Nix where it can.
// Who loses his rule is cut off within a second, also where he waits, and nobody else is.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	ca := NewAuthority(t)
	rule := func(name, more string) string {
		return fmt.Sprintf("[[access.certificate]]\nname = %q\nclaims = {cn = %[1]q}\n%s", name, more)
	}
	ci, op := rule("ci", `scopes = ["push", "promote:web"]`), rule("op", `scopes = ["operate"]`)
	hosts := "[[access.certificate]]\nname = \"hosts\"\nclaims = {cn = \"web-*\"}\nscopes = [\"follow:web\"]\nhost_claim = \"cn\""
	s := NewServer(t, func(c *Config) { c.TLS, c.MTLS, c.Anonymous, c.More = ca, true, []string{}, []string{ci, op, hosts} })
	client := func(name string) *http.Client {
		cert, key := ca.Issue(name)
		config := ca.Client()
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
		transport := &http.Transport{TLSClientConfig: config}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: time.Minute}
	}
	get := func(c *http.Client, path string) (int, http.Header) {
		t.Helper()
		resp, err := c.Get(s.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		return resp.StatusCode, resp.Header
	}
	desired := func(name string) string {
		return "/api/v1/hosts/" + name + "/desired?channel=web&instance=" + strings.Repeat("5e", 16) + "&boot=b1"
	}
	one, two := client("web-1"), client("web-2")
	for what, c := range map[string]struct {
		client *http.Client
		path   string
		want   int
	}{
		"a host as itself":          {one, desired("web-1"), 200},
		"a host as another":         {one, desired("web-2"), 403},
		"a host reads hosts":        {one, "/api/v1/hosts", 403},
		"an operator reads hosts":   {client("op"), "/api/v1/hosts", 200},
		"one without a rule":        {client("nobody"), "/api/v1/hosts", 401},
		"one without, in the cache": {client("nobody"), "/" + strings.Repeat("0", 32) + ".narinfo", 401},
		"ci, in the cache":          {client("ci"), "/" + strings.Repeat("0", 32) + ".narinfo", 404},
		"no certificate":            {&http.Client{Transport: &http.Transport{TLSClientConfig: ca.Client()}}, "/api/v1/hosts", 401},
	} {
		if got, _ := get(c.client, c.path); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}

	// Commands.
	cert, key := ca.Issue("op")
	out := run(t, program{argv: []string{s.bin, "hosts", "--server", s.URL()}, dir: s.Dir,
		env: append(os.Environ(), "NARWHARF_CA_FILE="+ca.File, "NARWHARF_CERT_FILE="+cert, "NARWHARF_KEY_FILE="+key)})
	if out.Code != 0 {
		t.Errorf("a command with a certificate: %v", out)
	}

	// Both wait; the rule then names web-1 alone.
	type end struct {
		status int
		after  time.Duration
		err    error
	}
	wait := func(c *http.Client, name string) chan end {
		_, head := get(c, desired(name))
		ended := make(chan end, 1)
		go func() {
			req, err := http.NewRequest("GET", s.URL()+desired(name), nil)
			if err != nil {
				ended <- end{err: err}
				return
			}
			req.Header.Set("If-None-Match", head.Get("ETag"))
			req.Header.Set("Prefer", "wait=20")
			began := time.Now()
			resp, err := c.Do(req)
			e := end{err: err}
			if err == nil {
				e.status = resp.StatusCode
				_ = resp.Body.Close()
			}
			e.after = time.Since(began)
			ended <- e
		}()
		return ended
	}
	first, second := wait(one, "web-1"), wait(two, "web-2")
	time.Sleep(2 * time.Second)
	s.Reconfigure(func(c *Config) { c.More = []string{ci, op, strings.Replace(hosts, "web-*", "web-1", 1)} })
	began := time.Now()
	s.Signal(syscall.SIGHUP)
	gone := <-second // net/http asks once more by itself, over a new connection
	if took := time.Since(began); took > time.Second || gone.err == nil && gone.status != 401 {
		t.Errorf("the host without a rule went on for %v: %+v", took, gone)
	}
	if got, _ := get(two, desired("web-2")); got != 401 {
		t.Errorf("the host without a rule: %d", got)
	}
	if stays := <-first; stays.err != nil || stays.status != 304 || stays.after < 15*time.Second {
		t.Errorf("the other host: %+v", stays)
	}

	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		nix := NewNix(t, suite).In(c.Root)
		nix.CA = ca.File
		if !nix.AtLeast(2, 34) {
			t.Skipf("Nix %s shows no certificate", nix.Version)
		}
		cert, key := ca.Issue("ci")
		shown := "&tls-certificate=" + cert + "&tls-private-key=" + key
		nix.Push(s.URL(), "?compression=zstd"+shown, c.Path("a"))
		down := NewNix(t, suite)
		down.CA = ca.File
		down.Pull(s.URL()+"?"+shown[1:], c.Path("a"))
		NewNix(t, suite).Fails(nil, "nix", "copy", "--no-check-sigs", "--from", s.URL(), c.Path("a"))
	})
}
