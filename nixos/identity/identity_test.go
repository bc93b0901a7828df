package identity

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"narwharf/hooks/api/proof"
	"narwharf/signing/access/awsiam"
	"narwharf/signing/access/hostkey"
)

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		Config
		want string
	}{
		{Config{}, ""},
		{Config{Kind: "ssh"}, ""},
		{Config{Kind: "ssh", SSHKey: "/x", ServerURL: "https://cache.example.org"}, ""},
		{Config{Kind: "aws", Region: "eu-west-1"}, ""},
		{Config{Kind: "oidc", From: "gcp"}, ""},
		{Config{Kind: "oidc", From: "file", File: "/x", Audience: "narwharf"}, ""},
		{Config{Kind: "oidc", From: "command", Command: []string{"x"}}, ""},
		{Config{Kind: "oidc", From: "azure", Audience: "api://narwharf"}, ""},
		{Config{Kind: "tpm"}, "none of ssh, aws, oidc"},
		{Config{SSHKey: "/x"}, "ssh_key"}, {Config{Kind: "ssh", Region: "x"}, "region"}, {Config{Kind: "ssh", From: "gcp"}, "from"},
		{Config{ServerURL: "https://x"}, "kind"}, {Config{Kind: "ssh", ServerURL: "x"}, "server_url"},
		{Config{Kind: "oidc"}, "from"}, {Config{Kind: "oidc", From: "file"}, "file"}, {Config{Kind: "oidc", From: "gcp", File: "x"}, "file"},
		{Config{Kind: "oidc", From: "command"}, "command"}, {Config{Kind: "oidc", From: "azure"}, "audience"},
		{Config{Kind: "oidc", From: "azure", Audience: "https://management.azure.com/"}, "rights there"},
	} {
		err := c.Check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.Config, err)
		}
	}
}

func TestSSH(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Kind: "ssh", SSHKey: file}, nil)
	p, err := s.Proof(t.Context(), "n", "https://c", "web-1", "i")
	if err != nil || p.Type != proof.SSH || p.Nonce != "n" || !s.NeedsNonce() {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := hostkey.Verify(p.Signature, hostkey.Message("n", "https://c", "web-1", "i")); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Proof(t.Context(), "n", "https://c", "web-1", "i"); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
	s.SSHKey = filepath.Join(t.TempDir(), "none")
	if _, err := s.Proof(t.Context(), "n", "https://c", "web-1", "i"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// cloud pretends to be a metadata service.
type cloud struct {
	t       *testing.T
	answers map[string]string // by method and path
	status  map[string]int
	header  http.Header
	asked   []string
}

func (c *cloud) RoundTrip(req *http.Request) (*http.Response, error) {
	what := req.Method + " " + req.URL.RequestURI()
	c.asked = append(c.asked, what)
	if req.URL.Host != "169.254.169.254" || req.URL.Scheme != "http" {
		c.t.Errorf("asked %s", req.URL)
	}
	if strings.HasPrefix(req.URL.Path, "/latest/meta-data") && req.Header.Get("X-aws-ec2-metadata-token") != "T" {
		c.t.Errorf("%s without the token", what)
	}
	text, ok := c.answers[what]
	status := 404
	if ok {
		status = 200
	}
	if s := c.status[what]; s != 0 {
		status = s
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: c.header.Clone(), Body: io.NopCloser(strings.NewReader(text))}, nil
}

func TestAWS(t *testing.T) {
	const roles = "GET /latest/meta-data/iam/security-credentials/"
	fresh := func() *cloud {
		return &cloud{t: t, header: http.Header{}, status: map[string]int{}, answers: map[string]string{
			"PUT /latest/api/token": "T", roles: "narwharf-host",
			roles + "narwharf-host":                  `{"Code":"Success","AccessKeyId":"ASIAIOSFODNN7EXAMPLE","SecretAccessKey":"s","Token":"IQoJb3JpZ2luX2VjEXAMPLE","Expiration":"2026-01-02T20:00:00Z"}`,
			"GET /latest/meta-data/placement/region": "eu-west-1\n",
		}}
	}
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	c := fresh()
	s := New(Config{Kind: "aws"}, c)
	s.now = func() time.Time { return now }
	p, err := s.Proof(t.Context(), "n", "https://c", "", "i")
	if err != nil {
		t.Fatal(err)
	}
	// What it signs is checked in package awsiam; here, that it is with what the metadata has.
	if p.Region != "eu-west-1" || p.AccessKeyID != "ASIAIOSFODNN7EXAMPLE" || p.Date != "20260102T150405Z" || len(p.Signature) != 64 || p.Nonce != "n" {
		t.Errorf("%+v", p)
	}
	want, err := awsiam.Sign(awsiam.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: "s", SessionToken: "IQoJb3JpZ2luX2VjEXAMPLE"}, "eu-west-1", "n", "https://c", now)
	if err != nil || want.Signature != p.Signature {
		t.Errorf("%v, want %v (%v)", p.Signature, want.Signature, err)
	}
	for name, x := range map[string]struct {
		change func(*cloud)
		want   string
	}{
		"no service":    {func(c *cloud) { delete(c.answers, "PUT /latest/api/token") }, "/latest/api/token with 404"},
		"no role":       {func(c *cloud) { delete(c.answers, roles) }, "instance profile"},
		"a bad role":    {func(c *cloud) { c.answers[roles] = "../../user-data" }, "names no role"},
		"no success":    {func(c *cloud) { c.answers[roles+"narwharf-host"] = `{"Code":"Failed"}` }, `"Failed"`},
		"no JSON":       {func(c *cloud) { c.answers[roles+"narwharf-host"] = "<html>" }, "no credentials"},
		"a redirect":    {func(c *cloud) { c.status[roles] = 302; c.header.Set("Location", "http://10.0.0.1/") }, "302"},
		"a long answer": {func(c *cloud) { c.answers[roles] = strings.Repeat("x", maxMetadata+1) }, "more than"},
		"mars":          {func(c *cloud) { c.answers["GET /latest/meta-data/placement/region"] = "mars-1" }, "mars-1"},
	} {
		c := fresh()
		x.change(c)
		if _, err := New(Config{Kind: "aws"}, c).Proof(t.Context(), "n", "https://c", "", "i"); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJWTs(t *testing.T) {
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
	c := &cloud{t: t, header: http.Header{"Metadata-Flavor": {"Google"}}, answers: map[string]string{
		"GET /computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Fc&format=full": jwt,
		"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=api%3A%2F%2Fnarwharf":                `{"access_token":"` + jwt + `","token_type":"Bearer"}`,
	}}
	file := filepath.Join(t.TempDir(), "jwt")
	if err := os.WriteFile(file, []byte(jwt+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"gcp": {From: FromGCP}, "azure": {From: FromAzure, Audience: "api://narwharf"}, "file": {From: FromFile, File: file},
		"command": {From: FromCommand, Command: []string{"sh", "-c", `test "$NARWHARF_AUDIENCE" = https://c && echo ` + jwt}},
	} {
		cfg.Kind = proof.OIDC
		s := New(cfg, c)
		p, err := s.Proof(t.Context(), "", "https://c", "", "i")
		if err != nil || p.Token != jwt || p.Type != proof.OIDC || s.NeedsNonce() {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	if err := os.WriteFile(file, []byte(strings.Repeat("x", maxJWT+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	other := &cloud{t: t, header: http.Header{}, answers: c.answers}
	for name, x := range map[string]struct {
		Config
		*cloud
		want string
	}{
		"not Google":     {Config{From: FromGCP}, other, "not Google's"},
		"another app":    {Config{From: FromAzure, Audience: "api://other"}, c, "404"},
		"a long file":    {Config{From: FromFile, File: file}, c, "more than"},
		"no file":        {Config{From: FromFile, File: file + "x"}, c, "no such file"},
		"a failure":      {Config{From: FromCommand, Command: []string{"sh", "-c", "echo why >&2; exit 3"}}, c, "exit status 3: why"},
		"no JWT":         {Config{From: FromCommand, Command: []string{"echo", "hello world"}}, c, "no JWT"},
		"a long command": {Config{From: FromCommand, Command: []string{"sh", "-c", "head -c 100000 /dev/zero"}}, c, "more than a JWT"},
	} {
		x.Config.Kind = proof.OIDC
		if _, err := New(x.Config, x.cloud).Proof(t.Context(), "", "https://c", "", "i"); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLinkLocal: what is not of this link is not asked.
func TestLinkLocal(t *testing.T) {
	for _, address := range []string{"127.0.0.1:80", "10.0.0.1:80", "metadata.google.internal:80", "[::1]:80"} {
		if _, err := linkLocal(t.Context(), "tcp", address); err == nil || !strings.Contains(err.Error(), "not of this link") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
