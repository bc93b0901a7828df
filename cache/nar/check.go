package nar

import "io"

// Check reads r to its end and reports whether it holds exactly one well-formed NAR, whose size
// it returns. File bodies are skipped, at the speed of r. Errors are those of Reader.Next; size is
// then how far the NAR was good.
func Check(r io.Reader) (size int64, err error) {
	rd := NewReader(r)
	for {
		if err := rd.step(); err != nil {
			if err == io.EOF {
				err = nil
			}
			return rd.Offset(), err
		}
	}
}
