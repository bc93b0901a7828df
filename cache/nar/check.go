package nar

import (
	"io"
	"sync"
)

// Check reads r to its end and reports whether it holds exactly one well-formed NAR, whose size
// it returns. File bodies are skipped, at the speed of r. Errors are those of Reader.Next; size is
// then how far the NAR was good.
func Check(r io.Reader) (size int64, err error) {
	rd := borrowReader(r)
	defer returnReader(rd)
	for {
		if err := rd.step(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return rd.Offset(), err
		}
	}
}

// readers saves the buffer of a Reader: the check of a small NAR takes 0.1 µs with and 5.6 µs
// without (BenchmarkCheck/ours/tiny).
var readers = sync.Pool{New: func() any { return NewReader(nil) }}

func borrowReader(src io.Reader) *Reader {
	rd := readers.Get().(*Reader)
	rd.Reset(src)
	return rd
}

func returnReader(rd *Reader) {
	rd.Reset(nil) // keep nothing of the caller's alive
	readers.Put(rd)
}
