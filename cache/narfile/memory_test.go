package narfile

import (
	"bufio"
	"bytes"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"narwharf/cache/narfiletest"
)

func TestWindows(t *testing.T) {
	archive, packed := narfiletest.Samples(t)
	for name, want := range map[string]uint64{"xz": 8 << 20, "two xz": 8 << 20} {
		if body, ok := packed[name]; ok {
			if got := xzWindow(bufio.NewReader(bytes.NewReader(body))); got != want {
				t.Errorf("%s: %d", name, got)
			}
		}
	}
	xz9 := bytes.Clone(packed["xz"])
	at := bytes.Index(xz9[12:], []byte{0x21, 1}) + 12
	for dict, want := range map[byte]uint64{0: 4 << 10, 1: 6 << 10, 22: 8 << 20, 28: 64 << 20, 30: 128 << 20} {
		xz9[at+2] = dict
		if got := xzWindow(bufio.NewReader(bytes.NewReader(xz9))); got != want {
			t.Errorf("dictionary %d: %d, want %d", dict, got, want)
		}
	}
	for _, n := range []int{0, 5, 12, 14, 18} {
		xzWindow(bufio.NewReader(bytes.NewReader(xz9[:n]))) // does not panic
		zstdWindow(bufio.NewReader(bytes.NewReader(packed["zstd"][:min(n, len(packed["zstd"]))])))
	}
	for _, window := range []int{1 << 20, 8 << 20, 128 << 20} {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(archive); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil { // else the size is known, and the window is that
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := zstdWindow(bufio.NewReader(bytes.NewReader(out.Bytes()))); got != uint64(window) {
			t.Errorf("window %d: %d", window, got)
		}
		if _, err := Read("x.nar.zst", bytes.NewReader(out.Bytes()), NoLimit); err != nil {
			t.Errorf("window %d: %v", window, err)
		}
	}
}

func TestBrotliWindow(t *testing.T) {
	for bits := 10; bits <= 24; bits++ {
		var out bytes.Buffer
		quality := 1
		if bits < 18 { // of which that one makes none
			quality = 5
		}
		w := brotli.NewWriterOptions(&out, brotli.WriterOptions{Quality: quality, LGWin: bits})
		_, err := w.Write(bytes.Repeat([]byte("0123456789abcdef"), 1<<(max(bits, 20)-3))) // else the encoder takes a smaller one
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := brotliWindow(bufio.NewReader(&out)); got != 1<<bits {
			t.Errorf("a window of %d bits is taken for %d bytes", bits, got)
		}
	}
	brotliWindow(bufio.NewReader(new(bytes.Buffer))) // does not panic
}

// TestPlaces: with all places for large windows taken, a small one goes on, and a large one
// waits for its turn.
func TestPlaces(t *testing.T) {
	_, packed := narfiletest.Samples(t)
	large := bytes.Clone(packed["xz"])
	at := bytes.Index(large[12:], []byte{0x21, 1}) + 12
	large[at+2] = 30 // the header's checksum is wrong now: it is read when there is a place
	if !receiving.large.TryAcquire(2 * maxWindow) {
		t.Fatal("places are taken")
	}
	if _, err := Read("x.nar.xz", bytes.NewReader(packed["xz"]), NoLimit); err != nil {
		t.Error(err)
	}
	ended := make(chan error)
	go func() {
		_, err := Read("x.nar.xz", bytes.NewReader(large), NoLimit)
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	receiving.large.Release(2 * maxWindow)
	if err := <-ended; err == nil {
		t.Error("a damaged header was taken")
	}
	if !receiving.large.TryAcquire(2*maxWindow) || len(receiving.small) != 0 {
		t.Error("places are kept")
	}
	receiving.large.Release(2 * maxWindow)
}
