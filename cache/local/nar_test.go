package local

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"narwharf/cache/nar/dump"
)

// TestExactly: as many bytes as were announced, and the last ones only when all
// is known to be well.
func TestExactly(t *testing.T) {
	const size = 100
	write := func(pieces ...int) (sent int, err error) {
		var got bytes.Buffer
		out := &exactly{w: &got, left: size}
		for i, n := range pieces {
			if i%2 == 0 {
				_, err = out.Write(make([]byte, n))
			} else {
				_, err = out.ReadFrom(&io.LimitedReader{R: bytes.NewReader(make([]byte, n)), N: int64(n)})
			}
			if err != nil {
				return got.Len(), err
			}
			if got.Len() > size-heldBytes {
				t.Errorf("%v: %d bytes are out before the end", pieces, got.Len())
			}
		}
		err = out.end()
		return got.Len(), err
	}
	for _, pieces := range [][]int{{100}, {50, 50}, {1, 98, 1}, {0, 100}, {92, 8}, {93, 7}, {95, 1, 1, 1, 1, 1}, {1, 1, 98}} {
		if sent, err := write(pieces...); sent != size || err != nil {
			t.Errorf("%v: %d bytes, %v", pieces, sent, err)
		}
	}
	for _, pieces := range [][]int{{101}, {50, 51}, {100, 0, 1}, {99}, {0, 99}, {50, 49}, {}} {
		sent, err := write(pieces...)
		if sent >= size || !errors.Is(err, dump.ErrChanged) {
			t.Errorf("%v: %d bytes, %v", pieces, sent, err)
		}
	}
}
