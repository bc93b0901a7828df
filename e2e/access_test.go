package e2e

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Without a token an upload ends with 401 and a text that the client shows.
func TestPushWithoutToken(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, nil)
		before := s.Files()
		NewNix(t, suite).In(c.Root).Fails([]string{"401", "token"}, "nix", "copy", "--to", s.URL(), c.Path("c"))
		NewNix(t, suite).In(c.Root).Netrc("not-a-token").Fails([]string{"401", "token"}, "nix", "copy", "--to", s.URL(), c.Path("c"))
		NewNix(t, suite).In(c.Root).Netrc(s.Token("reader", "pull")).Fails([]string{"403", "push"}, "nix", "copy", "--to", s.URL(), c.Path("c"))
		if diff := before.diff(s.Files()); len(diff) > 0 {
			t.Errorf("a refused upload left %v", diff)
		}
	})
}

// Old credentials in a netrc do not break reading a public cache.
func TestStaleCredentials(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, nil)
		NewNix(t, suite).In(c.Root).Netrc(s.Token("ci", "push")).Push(s.URL(), "?compression=zstd", c.Path("a"))
		NewNix(t, suite).Netrc("revoked-long-ago").Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("a"))
		NewNix(t, suite).Netrc("").Trust(s.URL(), s.Key).Must("nix-store", "--realise", c.Path("a"))
	})
}

// A private cache is read with a token only, by every route but those that say nothing.
func TestPrivateCache(t *testing.T) {
	t.Parallel()
	eachSuite(t, func(t *testing.T, suite string) {
		c := NeedClosures(t, suite)
		s := NewServer(t, func(c *Config) { c.Anonymous = []string{} })
		push, pull := s.Token("ci", "push", "pull"), s.Token("host", "pull")
		NewNix(t, suite).In(c.Root).Netrc(push).Push(s.URL(), "?compression=zstd&write-nar-listing=1", c.Path("a"))
		a := c.Path("a")

		NewNix(t, suite).Netrc(pull).Trust(s.URL(), s.Key).Must("nix-store", "--realise", a)
		NewNix(t, suite).Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", a)
		NewNix(t, suite).Netrc("wrong").Trust(s.URL(), s.Key).Fails(nil, "nix-store", "--realise", a)
		NewNix(t, suite).Fails(nil, "nix", "copy", "--no-check-sigs", "--from", s.URL(), a) // a 401 on a narinfo means "missing" to Nix

		doc := ParseDoc(t, NewUploader(t, s.URL(), pull).Get("/"+hashOf(a)+".narinfo").Body)
		for _, path := range []string{"/" + hashOf(a) + ".narinfo", "/" + hashOf(a) + ".ls", "/" + doc.URL, "/nar/" + strings.Repeat("0", 52) + ".nar",
			"/log/" + filepath.Base(c.Path("a_drv")), "/realisations/sha256:" + strings.Repeat("0", 64) + "!out.doi"} {
			for _, method := range []string{"GET", "HEAD"} {
				r := NewUploader(t, s.URL(), "").Do(method, path, "", nil)
				if r.Status != http.StatusUnauthorized {
					t.Errorf("without a token: %v", r)
				}
			}
		}
	})
}

// A token works as Bearer and as Basic password of any user, until it is revoked; it is stored as a
// hash only.
func TestTokens(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	p := NewPath("token", RandomNAR(6, 100))
	doc, file := Describe(t, p, "/nix/store", "zstd")
	put := func(authorization string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, s.URL()+"/"+doc.URL, bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		if user, password, ok := strings.Cut(authorization, ":"); ok {
			req.SetBasicAuth(user, password)
		} else {
			req.Header.Set("Authorization", authorization)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	for _, good := range []string{"Bearer " + token, "bearer " + token, "anyone:" + token, ":" + token} {
		if status := put(good); status/100 != 2 {
			t.Errorf("Authorization %.10s…: %d", good, status)
		}
	}
	for _, bad := range []string{"Bearer " + token + "x", "Bearer", "Bearer ", "Basic !!!", "anyone:" + token[1:], "Digest " + token} {
		if status := put(bad); status != http.StatusUnauthorized {
			t.Errorf("Authorization %.10s…: %d, want 401", bad, status)
		}
	}

	if out := s.CLI("token", "list"); out.Code != 0 || !strings.Contains(out.Stdout, "ci") || strings.Contains(out.Stdout, token) {
		t.Errorf("token list\n%v", out)
	}
	if out := s.CLI("token", "new", "--name", "x", "--scope", "everything"); out.Code == 0 || out.Stdout != "" {
		t.Errorf("a token of an unknown scope\n%v", out)
	}
	var found []string
	err := filepath.WalkDir(s.Data, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		body, err := os.ReadFile(name)
		if bytes.Contains(body, []byte(token)) {
			found = append(found, name)
		}
		return err
	})
	if err != nil || len(found) > 0 {
		t.Errorf("the token itself stands in %v (%v)", found, err)
	}

	if out := s.CLI("token", "revoke", "ci"); out.Code != 0 {
		t.Errorf("token revoke\n%v", out)
	}
	if status := put("Bearer " + token); status != http.StatusUnauthorized {
		t.Errorf("a revoked token: %d, want 401", status)
	}
	// The same commands while nothing runs.
	s.Stop()
	again := s.Token("ci2", "push")
	if out := s.CLI("token", "list"); out.Code != 0 || !strings.Contains(out.Stdout, "ci2") {
		t.Errorf("token list of a stopped server\n%v", out)
	}
	s.Start()
	if status := put("Bearer " + again); status/100 != 2 {
		t.Errorf("a token made while the server was stopped: %d", status)
	}
}
