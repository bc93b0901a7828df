package narfile

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"narwharf/narinfo"
)

// What is read and what is hashed is what there was, however it comes, and many at once do not
// mix their buffers.
func TestTapped(t *testing.T) {
	var wait sync.WaitGroup
	defer wait.Wait()
	for worker := range 8 {
		wait.Go(func() {
			rnd := rand.NewChaCha8([32]byte{byte(worker)})
			random := rand.New(rnd)
			for range 30 {
				text := make([]byte, random.IntN(3<<20))
				_, _ = rnd.Read(text)
				var src io.Reader = bytes.NewReader(text)
				if random.IntN(3) == 0 {
					src = iotest.HalfReader(iotest.DataErrReader(src))
				}
				r := newTapped(src)
				got, err := io.ReadAll(io.LimitReader(r, int64(random.IntN(4<<20))))
				if err == nil && len(got) < len(text) && random.IntN(2) == 0 {
					r.close() // before its end
					continue
				}
				rest, err2 := io.ReadAll(r)
				if got = append(got, rest...); errors.Join(err, err2) != nil || !bytes.Equal(got, text) {
					t.Errorf("%d bytes came of %d: %v, %v", len(got), len(text), err, err2)
				}
				if want := narinfo.Hash(sha256.Sum256(text)); r.hash() != want || r.tap.size != int64(len(text)) {
					t.Errorf("%d bytes have another hash", len(text))
				}
				r.close()
			}
		})
	}
}

func TestTappedError(t *testing.T) {
	broken := errors.New("broken")
	r := newTapped(io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20)), iotest.ErrReader(broken)))
	defer r.close()
	if n, err := io.Copy(io.Discard, r); n != 1<<20 || !errors.Is(err, broken) {
		t.Error(n, err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, broken) {
		t.Error("the error does not stay:", err)
	}
}
