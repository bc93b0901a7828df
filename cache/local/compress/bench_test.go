package compress

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"

	"narwharf/narinfo"
)

// BenchmarkColdNAR is how long n clients wait, each on a connection of its own,
// that ask for one NAR that nobody asked for before. PACK_BENCH_NAR names a real one.
func BenchmarkColdNAR(b *testing.B) {
	nar := pseudo(64<<20, 1)
	if name := os.Getenv("PACK_BENCH_NAR"); name != "" {
		var err error
		if nar, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	}
	key := narinfo.Hash(sha256.Sum256(nar))
	src := func(_ context.Context, w io.Writer) error {
		for rest := nar; len(rest) > 0; {
			n := min(len(rest), 256<<10)
			if _, err := w.Write(rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}
	for _, clients := range []int{1, 50} {
		b.Run(fmt.Sprintf("%d clients", clients), func(b *testing.B) {
			b.SetBytes(int64(len(nar)))
			for b.Loop() {
				s, err := Open(Options{Dir: b.TempDir(), Limit: 1 << 40})
				if err != nil {
					b.Fatal(err)
				}
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					st, err := s.Join(r.Context(), key, src)
					if err != nil {
						panic(err)
					}
					defer st.Close()
					if _, err := io.Copy(w, st); err != nil {
						panic(http.ErrAbortHandler)
					}
				}))
				var all sync.WaitGroup
				for range clients {
					all.Go(func() {
						c := &http.Client{Transport: &http.Transport{DisableCompression: true}}
						defer c.CloseIdleConnections()
						resp, err := c.Get(server.URL)
						if err != nil {
							b.Error(err)
							return
						}
						defer resp.Body.Close()
						if n, err := io.Copy(io.Discard, resp.Body); err != nil || n == 0 {
							b.Error(n, err)
						}
					})
				}
				all.Wait()
				server.Close()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
