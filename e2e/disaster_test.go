package e2e

import (
	"strings"
	"testing"
)

// The exercise of docs/scaling.md: the database is lost and has no dump. The bucket has what hosts need.
func TestDatabaseLost(t *testing.T) {
	t.Parallel()
	p := newPlaces(t)
	state := p.state()
	a, b := p.server(state+p.bucket()), p.server(state+p.bucket())
	a.Start()
	b.Start()
	token := a.Token("op", "push", "promote:*", "operate", "admin")
	var paths []*Path
	for i := range 20 {
		paths = append(paths, NewPath("p", RandomNAR(uint64(i), 20_000), paths[max(0, i-2):i]...))
	}
	NewUploader(t, a.URL(), token).Upload(paths...)
	op := newPromoter(b, b.bin, token, NewKey("deploy-1"))
	op.promote(0, "promoted web to seq 1", storePath(paths[19]))

	// Beside another server it is refused, with and without one on this machine.
	says := "servers that have the same database run"
	if out := a.CLI("rebuild"); out.Code != 2 || !strings.Contains(out.Stderr, says) {
		t.Errorf("rebuild in one of two servers\n%v", out)
	}
	a.Stop()
	if out := a.CLI("rebuild"); out.Code != 2 || !strings.Contains(out.Stderr, says) {
		t.Errorf("rebuild beside a server\n%v", out)
	}
	b.Stop()

	empty := p.state()
	for _, s := range []*Server{a, b} {
		s.Reconfigure(func(c *Config) { c.More = []string{"[storage]\n" + empty + p.bucket()} })
	}
	out := a.CLI("rebuild")
	if out.Code != 0 || !strings.Contains(out.Stdout, "index made anew: 20 paths") || !strings.Contains(out.Stdout, "channels restored from their files: 1") {
		t.Fatal(out)
	}
	a.Start()
	b.Start()
	for _, s := range []*Server{a, b} {
		for _, path := range paths {
			NewUploader(t, s.URL(), "").Fetch(path)
		}
	}
	again := newPromoter(b, b.bin, a.Token("op", "push", "promote:*", "operate"), op.key)
	again.must(0, storePath(paths[19]), "channel", "show", "web")
	again.promote(0, "promoted web to seq 2", storePath(paths[18]))
	host := NewUploader(t, b.URL(), a.Token("host", "follow:web", "pull"))
	if reply := host.Get("/api/v1/channels/web/store-path"); reply.Status != 200 || strings.TrimSpace(reply.Body) != storePath(paths[18]) {
		t.Error(reply)
	}
	a.Fsck()
}
