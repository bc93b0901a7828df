package cache

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzReadNar is for the decoders, which are other people's: whatever comes,
// none may panic, spin, or tell a different size from what it read.
func FuzzReadNar(f *testing.F) {
	_, packed := packedSamples(f)
	for name, body := range packed {
		f.Add(body, codecName(name) == "br")
	}
	f.Fuzz(func(t *testing.T, body []byte, br bool) {
		file := "x.nar"
		if br {
			file += ".br"
		}
		got, err := readNar(file, bytes.NewReader(body), 1<<20)
		if err != nil {
			if r := new(Refusal); !errors.As(err, &r) {
				t.Errorf("%v is no refusal", err)
			}
			return
		}
		if got.fileSize != int64(len(body)) || got.narSize < 112 || got.narSize > 1<<20 {
			t.Errorf("%+v of %d bytes", got, len(body))
		}
		again, err := readNar(file, &slowReader{body, 3}, 1<<20)
		if err != nil || again != got {
			t.Errorf("in small pieces it is %+v, %v, before it was %+v", again, err, got)
		}
	})
}
