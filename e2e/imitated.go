package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// An Imitated answers as another program would that serves a cache, with what a `nix copy` without compression has
// written to a folder. What is imitated are the answers of Harmonia (harmonia-cache/src: narinfo.rs, nar.rs, main.rs) and
// of attic (server/src/api/binary_cache.rs, server/src/database/entity/object.rs), as their sources have them.
type Imitated struct {
	T      testing.TB
	URL    string // of the cache
	folder string
	secret string // password of HTTP Basic, "" for none

	mu   sync.Mutex
	cuts int // how many NARs break off yet
	sent map[string]int
}

// NewImitated starts one: kind is "harmonia" or "attic". secret is for attic alone; Harmonia has no passwords.
func NewImitated(t testing.TB, kind, folder, secret string) *Imitated {
	t.Helper()
	i := &Imitated{T: t, folder: folder, secret: secret, sent: map[string]int{}}
	mux, path := http.NewServeMux(), ""
	switch kind {
	case "harmonia":
		i.harmonia(mux)
	case "attic":
		path = "/ci"
		i.attic(mux, path)
	default:
		t.Fatalf("nothing imitates %q", kind)
	}
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	i.URL = s.URL + path
	return i
}

// Cut lets the next NARs break off in their middle.
func (i *Imitated) Cut(n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cuts = n
}

// Sent is how often there was an answer of some kind: "range", "whole", "redirect", "stored", "refused".
func (i *Imitated) Sent(what string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.sent[what]
}

func (i *Imitated) count(what string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.sent[what]++
}

// doc is a narinfo of the folder, and the NAR file that it names; ok is false if there is none.
func (i *Imitated) doc(hash string) (d Doc, nar string, ok bool) {
	text, err := os.ReadFile(filepath.Join(i.folder, filepath.Base(hash)+".narinfo"))
	if err != nil {
		return d, "", false
	}
	d = ParseDoc(i.T, string(text))
	return d, filepath.Join(i.folder, d.URL), true
}

// breaks sends a body, or its first half where it is to break off.
func (i *Imitated) breaks(w http.ResponseWriter, body []byte) {
	i.mu.Lock()
	cut := i.cuts > 0 && len(body) > 1024
	if cut {
		i.cuts--
	}
	i.mu.Unlock()
	if !cut {
		_, _ = w.Write(body)
		return
	}
	_, _ = w.Write(body[:len(body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// harmonia serves a store: plain NARs, which it compresses on the way as HTTP knows it, and narinfos that say the size
// and hash of the NAR for those of the file. Parts it sends as they are, and says that their encoding is "none".
func (i *Imitated) harmonia(mux *http.ServeMux) {
	missed := func(w http.ResponseWriter) {
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "missed hash")
	}
	encoded := func(w http.ResponseWriter, r *http.Request, body []byte) {
		if strings.Contains(r.Header.Get("Accept-Encoding"), "zstd") {
			w.Header().Set("Content-Encoding", "zstd")
			body = zstdEncoder.EncodeAll(body, nil)
		}
		i.breaks(w, body)
	}
	mux.HandleFunc("GET /nix-cache-info", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n")
	})
	mux.HandleFunc("GET /{file}", func(w http.ResponseWriter, r *http.Request) {
		hash, isInfo := strings.CutSuffix(r.PathValue("file"), ".narinfo")
		d, _, ok := i.doc(hash)
		if !ok || !isInfo {
			missed(w)
			return
		}
		d.URL = "nar/" + strings.TrimPrefix(d.NarHash, "sha256:") + ".nar?hash=" + hash
		d.Compression, d.FileHash, d.FileSize = "none", d.NarHash, d.NarSize
		w.Header().Set("Content-Type", "text/x-nix-narinfo")
		w.Header().Set("Nix-Link", d.URL)
		w.Header().Set("Cache-Control", "max-age=86400")
		_, _ = io.WriteString(w, strings.Replace(d.String(), "References: \n", "", 1)) // it leaves the line out
	})
	mux.HandleFunc("GET /nar/{file}", func(w http.ResponseWriter, r *http.Request) {
		d, nar, ok := i.doc(r.URL.Query().Get("hash"))
		body, err := os.ReadFile(nar)
		if !ok || err != nil || r.PathValue("file") != strings.TrimPrefix(d.NarHash, "sha256:")+".nar" {
			missed(w)
			return
		}
		w.Header().Set("Content-Type", "application/x-nix-archive")
		w.Header().Set("Accept-Ranges", "bytes")
		w.Header().Set("Cache-Control", "max-age=31536000")
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && from < len(body) {
			i.count("range")
			w.Header().Set("Content-Encoding", "none")
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(body)-1, len(body)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(body[from:])
			return
		}
		i.count("whole")
		encoded(w, r, body)
	})
}

// attic serves a cache below its name. Narinfos say nothing of the file. A NAR of one chunk lies elsewhere, where an URL with a
// signature in it leads, which takes no password; one of several comes in as many frames. There are no parts, and no listings.
func (i *Imitated) attic(mux *http.ServeMux, path string) {
	stored := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.URL.Query().Get("X-Amz-Signature") == "" {
			i.count("refused")
			http.Error(w, "Only one auth mechanism allowed", http.StatusBadRequest)
			return
		}
		body, err := os.ReadFile(filepath.Join(i.folder, "nar", filepath.Base(r.URL.Path)))
		if err != nil {
			i.T.Error(err)
		}
		i.count("stored")
		i.breaks(w, chunks(body))
	}))
	i.T.Cleanup(stored.Close)
	fails := func(w http.ResponseWriter, status int, name string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"code":%d,"error":%q,"message":"%s."}`, status, name, name)
	}
	mux.HandleFunc("GET "+path+"/", func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != i.secret {
			fails(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		name := strings.TrimPrefix(r.URL.Path, path+"/")
		if name == "nix-cache-info" {
			_, _ = io.WriteString(w, "WantMassQuery: 1\nStoreDir: /nix/store\nPriority: 41\n")
			return
		}
		hash, isInfo := strings.CutSuffix(name, ".narinfo")
		hash, isNAR := strings.CutSuffix(strings.TrimPrefix(hash, "nar/"), ".nar")
		d, nar, ok := i.doc(hash)
		switch {
		case !ok || isInfo == isNAR:
			fails(w, http.StatusNotFound, "NoSuchObject")
		case isInfo:
			d.URL, d.Compression, d.FileHash, d.FileSize = "nar/"+hash+".nar", "zstd", "", ""
			w.Header().Set("Content-Type", "text/x-nix-narinfo")
			_, _ = io.WriteString(w, d.String())
		default:
			body, err := os.ReadFile(nar)
			if err != nil {
				i.T.Error(err)
			}
			if len(body) <= chunk {
				i.count("redirect")
				http.Redirect(w, r, stored.URL+"/bucket/"+filepath.Base(nar)+"?X-Amz-Signature=abc", http.StatusTemporaryRedirect)
				return
			}
			i.count("whole")
			i.breaks(w, chunks(body))
		}
	})
}

// chunk is how large chunks of attic's are here.
const chunk = 4 << 10

// chunks packs a body in a frame for each chunk.
func chunks(body []byte) (packed []byte) {
	for ; len(body) > chunk; body = body[chunk:] {
		packed = zstdEncoder.EncodeAll(body[:chunk], packed)
	}
	return zstdEncoder.EncodeAll(body, packed)
}
