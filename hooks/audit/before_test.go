package audit

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
)

// sparse is a log whose positions lie as far apart as those of a PostgreSQL with other work.
type sparse struct{ state.Store }

const apart = 1 << 20

type sparseReader struct{ state.Reader }

func (s sparse) View(ctx context.Context, fn func(tx state.Reader) error) error {
	return s.Store.View(ctx, func(tx state.Reader) error { return fn(sparseReader{tx}) })
}

func (s sparseReader) ReadLog(log string, from uint64, limit int) ([]state.Record, error) {
	list, err := s.Reader.ReadLog(log, (from+apart-1)/apart, limit)
	for i := range list {
		list[i].Position *= apart
	}
	return list, err
}

// TestBefore: all lines come once, the newest first, however they lie and whatever is kept.
func TestBefore(t *testing.T) {
	const n = 5000
	for name, wide := range map[string]bool{"dense": false, "sparse": true} {
		for _, every := range []int{1, 7, 4999} {
			t.Run(fmt.Sprint(name, every), func(t *testing.T) {
				l := newLog(t)
				var st state.Store = memory.New(nil)
				if wide {
					st = sparse{st}
				}
				l.set = mirror.NewSet(st, slog.New(slog.DiscardHandler))
				texts := make([]string, n)
				for i := range texts {
					texts[i] = fmt.Sprint(i + 1)
				}
				l.note(texts...)
				want, asked := n/every*every, 0
				for before := int64(newest - 1); before != 0; asked++ {
					list, next, err := Before(l.set, before, 300, func(e *api.Event) bool { return e.ID%int64(every) == 0 })
					if err != nil || len(list) > 300 || next >= before {
						t.Fatalf("%d lines, next %d, %v", len(list), next, err)
					}
					for _, e := range list {
						if e.Text != fmt.Sprint(want) {
							t.Fatalf("%s and not %d", e.Text, want)
						}
						want -= every
					}
					before = next
				}
				if want != 0 || asked > n/every/300+2 {
					t.Errorf("%d are missing after %d questions", want, asked)
				}
			})
		}
	}
	if list, next, err := Before(newLog(t).set, 17, 10, func(*api.Event) bool { return true }); err != nil || list != nil || next != 0 {
		t.Errorf("of an empty log: %v %d %v", list, next, err)
	}
}

// TestDamaged: a line that cannot be read is passed over, forwards and backwards.
func TestDamaged(t *testing.T) {
	l := newLog(t)
	l.note("one")
	if err := l.set.Update(t.Context(), nil, func(tx *mirror.Tx) error {
		return tx.Append(bucket, func(uint64) ([]byte, error) { return []byte("{no JSON"), nil })
	}); err != nil {
		t.Fatal(err)
	}
	l.note("three")
	all := func(*api.Event) bool { return true }
	forwards, _, err := Since(l.set, 1, 10, all)
	back, next, err2 := Before(l.set, newest-1, 10, all)
	if err != nil || err2 != nil || next != 0 || len(forwards) != 2 || len(back) != 2 || back[0].Text != "three" {
		t.Errorf("%+v %v, %+v %d %v", forwards, err, back, next, err2)
	}
}

// TestQuery: which lines a query means.
func TestQuery(t *testing.T) {
	e := api.Event{Kind: "host.state", Channel: "web", Host: "web-1", By: "ci"}
	for param, want := range map[[2]string]bool{
		{}: true, {"kind", "host.state"}: true, {"kind", "host.*"}: true, {"kind", "host"}: false, {"host", "web-1"}: true, {"host", "web-2"}: false,
		{"channel", "web"}: true, {"channel", "db"}: false, {"who", "c*"}: true, {"who", "x"}: false,
	} {
		q, err := ParseQuery(func(name string) string {
			if name == param[0] {
				return param[1]
			}
			return ""
		})
		if err != nil || q.Means(&e) != want {
			t.Errorf("%v: %v, %v", param, !want, err)
		}
	}
	for _, bad := range [][2]string{{"before", "0"}, {"before", "-1"}, {"before", "x"}, {"before", "9007199254740992"}, {"since", "x"}, {"channel", "WEB"}} {
		_, err := ParseQuery(func(name string) string {
			if name == bad[0] {
				return bad[1]
			}
			return ""
		})
		if err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}
