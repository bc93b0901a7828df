package cache

import (
	"fmt"
	"net/http"
	"strings"

	"narwharf/cache/blob"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
)

func (s *pages) getPubkey(w *reply.Writer, _ *http.Request, _ string) error {
	var text strings.Builder
	for _, k := range s.Signer.PublicKeys() {
		text.WriteString(k.String() + "\n")
	}
	return reply.Short(w, "text/plain; charset=utf-8", text.String())
}

func (s *pages) getVersion(w *reply.Writer, _ *http.Request, _ string) error {
	return reply.Short(w, "text/plain; charset=utf-8", "narwharf "+s.Version+"\n")
}

// getHealthz says that the process answers, and nothing more: a supervisor
// should not restart it because a disk is full.
func (s *pages) getHealthz(w *reply.Writer, _ *http.Request, _ string) error {
	return reply.Short(w, "text/plain; charset=utf-8", "ok\n")
}

// getReadyz really looks: at the index, at the files, at the local store if it is
// served, at the room left. A
// cache without room still serves, so that is said and is no failure.
func (s *pages) getReadyz(w *reply.Writer, req *http.Request, _ string) error {
	var problems []string
	// The all-zero hash: what counts is that the table answers.
	if _, err := s.Uploads.Index.Referrers(strings.Repeat("0", 32)); err != nil {
		problems = append(problems, "index: "+err.Error())
	}
	if _, err := s.Uploads.Files.Stat("nix-cache-info"); err != nil {
		problems = append(problems, "files: "+err.Error())
	}
	if s.Local != nil {
		if _, err := s.Local.Version(req.Context()); err != nil {
			problems = append(problems, "local store: "+err.Error())
		}
	}
	if len(problems) > 0 {
		return refusal.New(refusal.NotReady, "not ready: %s", strings.Join(problems, "; "))
	}
	text := "ready\n"
	if fs, ok := s.Uploads.Files.(*blob.FS); ok {
		free, err := fs.Free()
		if err != nil {
			return refusal.New(refusal.NotReady, "not ready: disk: %v", err)
		}
		text += fmt.Sprintf("room for uploads: %s\n", refusal.Size(max(free, 0)))
	}
	if s.Local != nil {
		text += "local store: " + s.Local.StoreDir() + "\n"
	}
	return reply.Short(w, "text/plain; charset=utf-8", text)
}

func (s *pages) getMetrics(w *reply.Writer, req *http.Request, _ string) error {
	s.metrics.handler().ServeHTTP(w, req)
	return nil
}
