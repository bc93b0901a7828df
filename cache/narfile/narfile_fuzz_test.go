package narfile

import (
	"bytes"
	"testing"

	"narwharf/cache/narfiletest"
	"narwharf/cache/refusal"
)

// FuzzRead is for the decoders, which are other people's: whatever comes,
// none may panic, spin, or tell a different size from what it read.
func FuzzRead(f *testing.F) {
	_, packed := narfiletest.Samples(f)
	for name, body := range packed {
		f.Add(body, narfiletest.Codec(name) == "br")
	}
	f.Fuzz(func(t *testing.T, body []byte, br bool) {
		file := "x.nar"
		if br {
			file += ".br"
		}
		got, err := Read(file, bytes.NewReader(body), 1<<20)
		if err != nil {
			if refusal.In(err) == nil {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		if got.FileSize != int64(len(body)) || got.NarSize < 96 || got.NarSize > 1<<20 {
			t.Errorf("%+v of %d bytes", got, len(body))
		}
		again, err := Read(file, &slowReader{body, 3}, 1<<20)
		if err != nil || again != got {
			t.Errorf("in small pieces it is %+v, %v, before it was %+v", again, err, got)
		}
	})
}
