package promoter_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/promoter"
	"narwharf/narinfo"
	"narwharf/signing"
)

// site is a server and a promoter of its channel web.
type site struct {
	*server
	t         *testing.T
	options   promoter.Options
	out, note strings.Builder
	counter   int64
}

func newSite(t *testing.T) *site {
	s := &site{server: newServer(), t: t}
	t.Cleanup(s.Close)
	s.options = promoter.Options{
		Client:  must(api.NewClient(api.ClientOptions{Servers: []string{s.URL}})),
		Channel: "web", Keys: []signing.Signer{must(signing.GenerateKey("alice-1"))}, Kind: api.KindPath,
		FromCache: true, ContentKeys: []signing.PublicKey{s.ci.Public()}, System: "x86_64-linux",
		Origin: "cache.example.org/web",
	}
	return s
}

func (s *site) promoter() *promoter.Promoter {
	s.t.Helper()
	p, err := promoter.New(s.options, &s.out, &s.note)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// promote sends a release of targets, each with its path.
func (s *site) promote(paths map[string]string) (*api.Promoted, error) {
	s.t.Helper()
	p := s.promoter()
	r, err := p.Build(s.t.Context(), paths)
	if err != nil {
		return nil, err
	}
	return p.Send(s.t.Context(), r)
}

func (s *site) mustPromote(paths map[string]string) int64 {
	s.t.Helper()
	a, err := s.promote(paths)
	if err != nil {
		s.t.Fatal(err)
	}
	return a.Seq
}

func (s *site) entries() map[string]string {
	s.t.Helper()
	c, err := s.options.Client.Channel(s.t.Context(), "web")
	if err != nil {
		s.t.Fatal(err)
	}
	_, entries, err := c.Release.Check()
	if err != nil {
		s.t.Fatal(err)
	}
	m := make(map[string]string)
	for _, e := range entries {
		m[e.Target] = e.StorePath
	}
	return m
}

// wantError checks the words of an error and, unless it is "", the kind.
func wantError(t *testing.T, err error, kind api.Kind, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%v, want … %s …", err, words)
	}
	var e *api.Error
	if kind != "" && (!errors.As(err, &e) || e.Kind != kind) {
		t.Errorf("%#v is not of the kind %s", err, kind)
	}
}

func TestChangeAndRollback(t *testing.T) {
	s := newSite(t)
	other := s.put("other").In("/nix/store")
	s.mustPromote(map[string]string{"a": s.path, "b": s.path})
	p := s.promoter()
	r, err := p.Change(t.Context(), map[string]string{"b": other, "c": other})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := p.Send(t.Context(), r); err != nil || a.Seq != 2 || len(a.Changed) != 2 || a.Unchanged != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	if got := fmt.Sprint(s.entries()); got != fmt.Sprint(map[string]string{"a": s.path, "b": other, "c": other}) {
		t.Error(got)
	}
	r, err = p.Rollback(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := p.Send(t.Context(), r); err != nil || a.Seq != 3 || len(a.Removed) != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	if got := fmt.Sprint(s.entries()); got != fmt.Sprint(map[string]string{"a": s.path, "b": s.path}) {
		t.Error(got)
	}
	if !strings.Contains(s.out.String(), "promoted web to seq 2: 2 changed, 1 unchanged, 0 removed\n") {
		t.Error(s.out.String())
	}
}

// Nothing is built upon that no trusted key signed.
func TestBaseIsVerified(t *testing.T) {
	s := newSite(t)
	one := int64(1)
	bob := must(signing.GenerateKey("bob-1"))
	s.options.ChannelKeys = []signing.PublicKey{bob.Public()}
	s.mustPromote(map[string]string{"*": s.path})
	_, err := s.promoter().Change(t.Context(), map[string]string{"a": s.path})
	wantError(t, err, "", "one system for all hosts")

	s.options.Keys, s.options.ChannelKeys = []signing.Signer{bob}, nil
	_, err = s.promote(map[string]string{"*": s.path})
	wantError(t, err, "", "cannot be built upon")
	_, err = s.promoter().Rollback(t.Context(), 1)
	wantError(t, err, "", "cannot be built upon")
	s.options.IfSeq = &one
	_, err = s.promoter().Change(t.Context(), map[string]string{"a": s.path})
	wantError(t, err, "", "cannot be built upon")
	_, err = s.promoter().Rollback(t.Context(), 1)
	wantError(t, err, "", "nothing to go back from")
	s.mustPromote(map[string]string{"a": s.path}) // whoever says the seq takes nothing else
	_, err = s.promote(map[string]string{"a": s.path})
	wantError(t, err, api.RaceLost, "channel web is at seq 2, not at 1")
}

// Of two promoters one wins.
func TestRace(t *testing.T) {
	s := newSite(t)
	s.mustPromote(map[string]string{"a": s.path})
	p := s.promoter()
	r, err := p.Build(t.Context(), map[string]string{"a": s.path, "b": s.path})
	if err != nil {
		t.Fatal(err)
	}
	s.mustPromote(map[string]string{"c": s.path})
	_, err = p.Send(t.Context(), r)
	wantError(t, err, api.RaceLost, "web")
}

func TestCacheIsVerified(t *testing.T) {
	s := newSite(t)
	path, err := narinfo.ParsePath("/nix/store", s.path)
	if err != nil {
		t.Fatal(err)
	}
	s.options.ContentKeys = []signing.PublicKey{must(signing.GenerateKey("other-1")).Public()}
	_, err = s.promote(map[string]string{"a": s.path})
	wantError(t, err, "", "target a: the cache's narinfo of "+string(path)+" has no good signature by a content key")
	s.options.ContentKeys = []signing.PublicKey{s.ci.Public()}
	_, err = s.promote(map[string]string{"a": "/nix/store/00000000000000000000000000000000-none"})
	wantError(t, err, "", "is not in the cache: nix copy it first")
	s.options.ContentKeys = nil
	_, err = promoter.New(s.options, &s.out, &s.note)
	wantError(t, err, "", "believe the cache only where a --content-key signed")
}

// A release that two have to sign goes through a file.
func TestFile(t *testing.T) {
	s := newSite(t)
	bob := must(signing.GenerateKey("bob-1"))
	s.options.Threshold, s.options.ChannelKeys = 2, []signing.PublicKey{bob.Public()}
	file := filepath.Join(t.TempDir(), "r.json")
	p := s.promoter()
	r, err := p.Build(t.Context(), map[string]string{"*": s.path})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Save(r, file); err != nil || !strings.Contains(s.note.String(), "wrote seq 1 of web to "+file+" with 1 signatures") {
		t.Fatalf("%v: %s", err, s.note.String())
	}
	if err := p.Save(r, file); err == nil {
		t.Error("a file was overwritten")
	}
	f, err := promoter.ReadFile(file)
	if err != nil || f.Head.Seq != 1 || len(f.Entries) != 1 {
		t.Fatal(f, err)
	}
	_, err = p.SendFile(t.Context(), f)
	wantError(t, err, api.BadSignature, "web")
	var shown strings.Builder
	if f.Show(&shown); !strings.Contains(shown.String(), "rules      2 of alice-1:") || !strings.Contains(shown.String(), "signatures \"alice-1\" (not verified here)\n") {
		t.Error(shown.String())
	}
	if n, err := f.Sign([]signing.Signer{bob}); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if f, err = promoter.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	s.options.Keys = nil
	if a, err := s.promoter().SendFile(t.Context(), f); err != nil || a.Seq != 1 {
		t.Errorf("%+v, %v", a, err)
	}
	s.options.Channel = "other"
	_, err = s.promoter().SendFile(t.Context(), f)
	wantError(t, err, "", "is a release of web, not of other")
}

func TestWaitOutcomes(t *testing.T) {
	s := newSite(t)
	end := s.follow("a", "web")
	first := s.mustPromote(map[string]string{"a": s.path})
	p := s.promoter()
	wait := func(seq int64, timeout time.Duration, want promoter.Outcome) {
		t.Helper()
		r, err := p.Wait(t.Context(), seq, timeout, time.Minute)
		if err != nil || r.Outcome != want || len(r.Hosts) != 1 || (want == promoter.TimedOut) != (len(r.Waiting) == 1) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	wait(first, time.Minute, promoter.Completed)
	end()
	second := s.mustPromote(map[string]string{"a": s.put("other").In("/nix/store")})
	wait(first, time.Minute, promoter.Superseded)
	wait(second, 300*time.Millisecond, promoter.TimedOut)
}
