package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
)

type thing struct{ N int }

// server is one of two that share a state.
type server struct {
	*Set
	things *Table[thing]
	heard  []string // what replaced was told
}

func newServer(t *testing.T, store state.Store, log *slog.Logger) *server {
	t.Helper()
	s := &server{Set: NewSet(store, log)}
	var err error
	s.things, err = Open(s.Set, "a/thing", "thing", func(key string, was, is *thing) {
		s.heard = append(s.heard, fmt.Sprintln(key, was != nil, is != nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) put(t *testing.T, key string, v *thing) {
	t.Helper()
	err := s.Update(t.Context(), []string{"thing:" + key}, func(tx *Tx) error {
		s.things.Put(tx, key, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *server) want(t *testing.T, want map[string]int) {
	t.Helper()
	got := make(map[string]int)
	for key, v := range s.things.All() {
		got[key] = v.N
	}
	if !maps.Equal(got, want) {
		t.Errorf("it has %v, want %v", got, want)
	}
	for key, n := range want {
		if v := s.things.Get(key); v == nil || v.N != n {
			t.Errorf("%s is %v, want %d", key, v, n)
		}
	}
}

func TestTwoServers(t *testing.T) {
	store := memory.New(nil)
	log := slog.New(slog.DiscardHandler)
	a, b := newServer(t, store, log), newServer(t, store, log)
	defer store.Watch(b.Noticed)()
	a.put(t, "x", &thing{1})
	a.put(t, "y", &thing{2})
	a.want(t, map[string]int{"x": 1, "y": 2}) // it is told of nothing, and wrote it
	b.want(t, map[string]int{"x": 1, "y": 2})
	b.put(t, "x", &thing{3})
	b.put(t, "y", nil)
	b.want(t, map[string]int{"x": 3})
	a.want(t, map[string]int{"x": 1, "y": 2}) // nobody told it
	a.Noticed([]string{"a/thing/y", "b/thing/x"})
	a.want(t, map[string]int{"x": 1})
	a.Noticed([]string{state.All})
	a.want(t, map[string]int{"x": 3})
	if v := a.things.Get("z"); v != nil {
		t.Errorf("z is %v", v)
	}
	c := newServer(t, store, log)
	c.want(t, map[string]int{"x": 3})
	if got := strings.Join(c.heard, ""); got != "x false true\n" {
		t.Errorf("it heard %s", got)
	}
}

// What fails is not in memory, and an error in the middle is the transaction's.
func TestErrors(t *testing.T) {
	store := memory.New(nil)
	a := newServer(t, store, slog.New(slog.DiscardHandler))
	boom := errors.New("boom")
	for name, fn := range map[string]func(tx *Tx) error{
		"returned":      func(*Tx) error { return boom },
		"kept":          func(tx *Tx) error { tx.Keep(boom); return nil },
		"the first one": func(tx *Tx) error { tx.Keep(boom); return errors.New("another") },
	} {
		err := a.Update(t.Context(), nil, func(tx *Tx) error {
			a.things.Put(tx, "x", &thing{1})
			return fn(tx)
		})
		if !errors.Is(err, boom) {
			t.Errorf("%s: %v", name, err)
		}
		a.want(t, map[string]int{})
	}
	put := func(text string) {
		if err := store.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put("a/thing", "x", []byte(text)) }); err != nil {
			t.Fatal(err)
		}
	}
	put("{")
	err := a.Update(t.Context(), nil, func(tx *Tx) error { a.things.In(tx, "x"); return nil })
	if err == nil || !strings.Contains(err.Error(), "thing x: ") {
		t.Errorf("a value that cannot be read: %v", err)
	}
	if _, err := Open[thing](NewSet(store, nil), "a/thing", "thing", nil); err == nil {
		t.Error("a table that cannot be read was opened")
	}
}

// While the state is away, memory stays as it was, with what it wrote itself.
func TestStateIsAway(t *testing.T) {
	store := memory.New(nil)
	var log bytes.Buffer
	a := newServer(t, store, slog.New(slog.NewTextHandler(&log, nil)))
	a.put(t, "x", &thing{1})
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	a.want(t, map[string]int{"x": 1})
	a.Noticed([]string{state.All})
	a.want(t, map[string]int{"x": 1})
	if !strings.Contains(log.String(), "memory is behind the state") {
		t.Errorf("the log says %s", &log)
	}
}

// Whatever was written before a notice is seen after it, however many write and
// read at the same time.
func TestConcurrent(t *testing.T) {
	store := memory.New(nil)
	log := slog.New(slog.DiscardHandler)
	servers := []*server{newServer(t, store, log), newServer(t, store, log)}
	for _, s := range servers {
		defer store.Watch(s.Noticed)()
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			s := servers[i%2]
			for range 50 {
				key := fmt.Sprint("k", i%3)
				err := s.Update(context.Background(), []string{key}, func(tx *Tx) error {
					n := 0
					if v := s.things.In(tx, key); v != nil {
						n = v.N
					}
					s.things.Put(tx, key, &thing{n + 1})
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				s.things.Get(key)
				s.things.All()
			}
		})
	}
	wg.Wait()
	for _, s := range servers {
		s.want(t, map[string]int{"k0": 150, "k1": 150, "k2": 100})
	}
}
