package pack

import (
	"bytes"
	"io"
	"sync"
	"testing"
)

func TestOneEncodeForManyReaders(t *testing.T) {
	const readers = 50
	w := newWorld(t, Options{})
	i := newItem(3<<20, 1)
	g := newGate()
	if _, known := w.Facts(i.name); known {
		t.Error("facts of what was never encoded")
	}
	var all sync.WaitGroup
	for n := range readers {
		st := w.join(i, i.gated(g))
		all.Go(func() {
			var got []byte
			var err error
			if n%2 == 0 {
				got, err = io.ReadAll(st)
			} else {
				var b bytes.Buffer
				_, err = st.WriteTo(&b)
				got = b.Bytes()
			}
			if err != nil {
				t.Error(err)
			}
			w.same(got, i)
			if facts, err := st.Result(); err != nil || facts != i.facts(t) {
				t.Error(facts, err)
			}
		})
	}
	<-g.started
	g.steps <- 1 << 20
	close(g.steps)
	all.Wait()
	if n := i.runs.Load(); n != 1 {
		t.Errorf("%d encodes", n)
	}
	if n := w.metric("joined_total"); n != readers-1 {
		t.Errorf("%d joined", n)
	}
	if w.result(resultOK) != 1 || !w.has(i) {
		t.Error("it is not kept")
	}
	w.fetch(i) // from the file
	if n := i.runs.Load(); n != 1 {
		t.Errorf("%d encodes", n)
	}
}
