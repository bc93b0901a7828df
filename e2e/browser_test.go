package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"narwharf/e2e/browser"

	"narwharf/e2e/repository"
)

// newBrowser starts a browser, if the machine has one.
func newBrowser(t testing.TB) *browser.Page {
	t.Helper()
	needTool(t, "chromium", "chromium")
	return browser.New(t)
}

// A person logs in with a token in a real browser, sees who that is, and logs out. Nothing on the way is
// against the page's own policy, and the session is worth nothing afterwards.
func TestBrowser(t *testing.T) {
	t.Parallel()
	s := NewServer(t, func(c *Config) { c.PublicURL = "http://" + c.Listen[0] })
	b := newBrowser(t)
	b.Open(s.URL() + "/ui/")
	b.Type("#token", s.Token("alice", "operate", "admin"))
	b.Click("button[type=submit]")
	s.loggedIn(b, "session/alice", "operate")
}

// loggedIn looks at a browser in which somebody has just logged in, and logs out.
func (s *Server) loggedIn(b *browser.Page, name, may string) {
	s.T.Helper()
	short, _, _ := strings.Cut(name, " (")
	if at, text := b.Eval("location.pathname"), b.Text(); at != "/ui/" || !strings.Contains(text, short) {
		s.T.Errorf("after the login, at %s: %s", at, text)
	}
	b.Open(s.URL() + "/ui/me")
	if at, text := b.Eval("location.pathname"), b.Text(); at != "/ui/me" || !strings.Contains(text, name) || !strings.Contains(text, may) || !strings.Contains(text, "this one") {
		s.T.Errorf("after the login, at %s: %s", at, text)
	}
	if style := b.Eval("getComputedStyle(document.querySelector('th')).textAlign + document.styleSheets.length"); !strings.HasSuffix(style, "1") {
		s.T.Errorf("the page has no style: %s", style)
	}
	if seen := b.Eval("document.cookie"); seen != "" {
		s.T.Errorf("a script on the page sees %q", seen)
	}
	c := b.Cookie("session")
	if c.Value == "" || !c.HTTPOnly || c.SameSite != "Lax" {
		s.T.Errorf("the session is the cookie %s, HttpOnly %v, SameSite %q", c.Name, c.HTTPOnly, c.SameSite)
	}
	status := func() int {
		req, err := http.NewRequest(http.MethodGet, s.URL()+"/api/v1/sessions", nil)
		if err != nil {
			s.T.Fatal(err)
		}
		req.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		res, err := s.client.Do(req)
		if err != nil {
			s.T.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if n := status(); n != http.StatusOK {
		s.T.Errorf("with the session's cookie: %d", n)
	}
	b.Click("#logout")
	if at := b.Eval("location.pathname"); at != "/ui/login" {
		s.T.Errorf("after the logout at %s: %s", at, b.Text())
	}
	if c := b.Cookie("session"); c.Value != "" {
		s.T.Errorf("after the logout it has %s", c.Name)
	}
	if n := status(); n != http.StatusUnauthorized {
		s.T.Errorf("with the cookie from before the logout: %d", n)
	}
	for _, said := range b.Said {
		if strings.Contains(said, s.URL()) || !strings.Contains(said, "/favicon.ico") { // an issuer of others has none
			s.T.Errorf("the browser says %q", said)
		}
	}
}

// foreign is an issuer of other people's making, which takes over for the audience of a server to come.
func foreign(t *testing.T, audience string) (url string, client *http.Client, roots string) {
	t.Helper()
	onlyLong(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "issuer")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir, build.Env = filepath.Join(repository.Root, "e2e", "issuer"), append(os.Environ(), "GOFLAGS=-buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		lacking(t, "no issuer of others: go build in e2e/issuer: %v\n%s", err, Tail(string(out), 1000))
	}
	cmd := exec.Command(program, dir, audience)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // it ends with its stdin
		in.Close()
		_ = cmd.Wait()
	})
	if url, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	roots = filepath.Join(dir, "ca.pem")
	pem, err := os.ReadFile(roots)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(url), &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}, roots
}

// An issuer that is not ours, through the real code: its discovery and keys, a program's JWT shown and
// exchanged, a person by the device flow in a terminal, and by the code flow in a browser.
func TestForeignIssuer(t *testing.T) {
	t.Parallel()
	var issuer, roots string
	var client *http.Client
	s := newServer(t, scratch(t), func(c *Config) {
		c.Anonymous, c.PublicURL = []string{}, "http://"+c.Listen[0]
		issuer, client, roots = foreign(t, c.PublicURL)
		c.More = append(c.More, `[[access.oidc]]
name = "corp"
issuer = "`+issuer+`"
client_id = "narwharf"
private_addresses = true

[[access.oidc.rules]]
name = "jobs"
claims = { sub = "sid1" }
scopes = ["push"]

[[access.oidc.rules]]
name = "people"
claims = { email = "*@zitadel.ch", email_verified = true }
scopes = ["operate"]
`)
	})
	s.prefix = []string{"env", "SSL_CERT_FILE=" + roots}
	s.Start()

	t.Run("a program", func(t *testing.T) {
		res, err := client.PostForm(issuer+"/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {"sid1"}, "client_secret": {"verysecret"}, "scope": {"openid"}})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var got struct {
			Token string `json:"access_token"`
		}
		if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
			t.Fatal(err)
		}
		jwt := got.Token
		if n := NewUploader(t, s.URL(), jwt).Get(nothing).Status; n != http.StatusNotFound {
			t.Errorf("its JWT as Bearer: %d\n%s", n, s.LogTail())
		}
		status, token := s.exchange(jwt)
		if status != http.StatusOK || NewUploader(t, s.URL(), token).Get(nothing).Status != http.StatusNotFound {
			t.Errorf("exchanged: %d", status)
		}
	})
	t.Run("a person in a browser", func(t *testing.T) {
		b := newBrowser(t)
		b.Open(s.URL() + "/ui/")
		b.Click("a[href*='/ui/login/corp']")
		b.Type("#username", "test-user@127.0.0.1")
		b.Type("#password", "verysecure")
		b.Said = nil // its page has no icon
		b.Click("button")
		s.loggedIn(b, "corp/people (id1)", "operate")
	})
	t.Run("a person in a terminal", func(t *testing.T) { s.byDevice(t, issuer, client, roots) })
}

// byDevice logs in on a terminal, and confirms it as with a telephone.
func (s *Server) byDevice(t *testing.T, issuer string, client *http.Client, roots string) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command("script", "-qefc", strings.Join(s.argv("login", s.URL()), " "), "/dev/null") // a terminal
	cmd.Env, cmd.Dir, cmd.SysProcAttr = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SSL_CERT_FILE=" + roots}, home, ownGroup()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		page, code, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "Open "), " and enter ")
		if !ok {
			continue
		}
		res, err := client.PostForm(page+"/login", url.Values{"user_code": {strings.TrimSpace(code)}, "username": {"test-user@127.0.0.1"}, "password": {"verysecure"}})
		if err == nil {
			res.Body.Close()
			res, err = client.Get(issuer + "/device/confirm?action=allowed")
		}
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("the page for the code: %v, %v", res, err)
			break
		}
		res.Body.Close()
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(said, "as corp/people (id1): ") {
		t.Fatalf("narwharf login: %v\n%s", err, said)
	}
	list := run(t, program{argv: s.argv("access", "sessions"), dir: home, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}})
	if list.Code != 0 || strings.Contains(list.Stdout, "corp/people") { // it was logged out
		t.Errorf("with the token of the login: %v", list)
	}
}
