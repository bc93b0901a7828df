package progress

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		Report(t.Context(), "nobody", 1, 2) // looks
		var seen []Step
		ctx := With(t.Context(), func(s Step) { seen = append(seen, s) })
		for i := range int64(1000) {
			Report(ctx, "a", i, 1000)
			time.Sleep(time.Millisecond)
		}
		Report(ctx, "b", 1, 0)
		if n := len(seen); n < 9 || n > 12 || seen[0] != (Step{"a", 0, 1000}) || seen[n-1] != (Step{"b", 1, 0}) {
			t.Errorf("%v", seen)
		}
		seen = nil
		stop := Every(ctx, "c", time.Second)
		time.Sleep(3500 * time.Millisecond)
		stop()
		if len(seen) != 3 || seen[2] != (Step{"c", 3, 0}) {
			t.Errorf("%v", seen)
		}
	})
}
