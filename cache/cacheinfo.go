package cache

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/reply"
)

// cacheInfo is the text of /nix-cache-info. WantMassQuery lets clients ask
// for many narinfos at once, also where nobody named this cache.
func cacheInfo(storeDir string, priority int) string {
	return fmt.Sprintf("StoreDir: %s\nWantMassQuery: 1\nPriority: %d\n", storeDir, priority)
}

func (s *pages) getCacheInfo(w *reply.Writer, _ *http.Request, _ string) error {
	return reply.Short(w, "text/x-nix-cache-info", cacheInfo(s.Uploads.StoreDir, s.Priority))
}

// putCacheInfo answers a client that thinks it founds a cache: Nix puts
// "StoreDir: …" where it found no nix-cache-info. What agrees is fine, and
// nothing is ever changed by it.
func (s *pages) putCacheInfo(w *reply.Writer, req *http.Request, _ string) error {
	text, err := io.ReadAll(narfile.Limit(req.Body, 4096, "nix-cache-info"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(line, "StoreDir:"); ok && strings.TrimSpace(dir) == s.Uploads.StoreDir {
			return reply.Stored(w)
		}
	}
	return refusal.New(refusal.StoreDir, "this cache is for paths in %s", s.Uploads.StoreDir)
}
