package cache

import (
	"net/http"

	"narwharf/cache/refusal"
	"narwharf/cache/reply"
	"narwharf/cache/sidecar"
)

// sidecars answers for logs, debug information, realisations and build traces.
type sidecars struct {
	*parts
	store *sidecar.Store
}

func (s *sidecars) send(w *reply.Writer, req *http.Request, name, contentType string) error {
	f, err := s.Uploads.Files.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return reply.Blob(w, req, f, contentType)
}

// reads sends the JSON files that name gives.
func (s *sidecars) reads(name func(string) string) endpoint {
	return func(w *reply.Writer, req *http.Request, id string) error {
		return s.send(w, req, name(id), "application/json")
	}
}

// writes takes in JSON files by put.
func (s *sidecars) writes(what string, put func(id string, text []byte) error) endpoint {
	return func(w *reply.Writer, req *http.Request, id string) error {
		text, err := smallBody(req, sidecar.MaxJSON, "the file in "+what, refusal.Content)
		if err != nil {
			return err
		}
		if err := put(id, text); err != nil {
			return err
		}
		return reply.Stored(w)
	}
}
