package challenge

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/memory"
	"narwharf/cache/state/mirror"
)

// world is a server with a clock that stands.
type world struct {
	*Challenges
	store state.Store
	set   *mirror.Set
	now   time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.store = memory.New(func() time.Time { return w.now })
	w.set = mirror.NewSet(w.store, nil)
	w.Challenges = w.open(t)
	return w
}

func (w *world) open(t *testing.T) *Challenges {
	t.Helper()
	c, err := Open(t.Context(), w.set)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) spend(t *testing.T, nonce, host, instance string) error {
	t.Helper()
	return w.set.Update(t.Context(), []string{"host:" + host}, func(tx *mirror.Tx) error {
		return w.Spend(tx, nonce, host, instance)
	})
}

// marks are how many nonces are known to be spent.
func (w *world) marks(t *testing.T) (n int) {
	t.Helper()
	err := w.store.View(t.Context(), func(tx state.Reader) error {
		list, err := tx.List(spentBucket, state.Range{})
		n = len(list)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func refused(err error) bool { return errors.As(err, new(*Refused)) }

func TestNonceIsGoodOnce(t *testing.T) {
	w := newWorld(t)
	nonce := w.New("web-1", "i1", w.now)
	if len(nonce) != 75 || strings.Trim(nonce, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		t.Errorf("nonce %q", nonce)
	}
	if w.New("web-1", "i1", w.now) == nonce {
		t.Error("two nonces are one")
	}
	if n := w.marks(t); n != 0 {
		t.Errorf("%d marks before anything was spent", n)
	}
	if err := w.spend(t, nonce, "web-1", "i1"); err != nil {
		t.Fatal(err)
	}
	if err := w.spend(t, nonce, "web-1", "i1"); !refused(err) || !strings.Contains(err.Error(), "used before") {
		t.Errorf("a second time: %v", err)
	}
	// Another process of the same state, as after a restart.
	w.Challenges = w.open(t)
	if err := w.spend(t, nonce, "web-1", "i1"); !refused(err) {
		t.Errorf("after a restart: %v", err)
	}
	if err := w.spend(t, w.New("web-1", "i1", w.now), "web-1", "i1"); err != nil {
		t.Errorf("another: %v", err)
	}
}

// What one transaction spends that fails is not spent.
func TestSpentWithTheRest(t *testing.T) {
	w := newWorld(t)
	nonce := w.New("web-1", "i1", w.now)
	boom := errors.New("boom")
	err := w.set.Update(t.Context(), []string{"host:web-1"}, func(tx *mirror.Tx) error {
		if err := w.Spend(tx, nonce, "web-1", "i1"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := w.spend(t, nonce, "web-1", "i1"); err != nil {
		t.Errorf("after a join that failed: %v", err)
	}
}

func TestNonceRefusals(t *testing.T) {
	w := newWorld(t)
	nonce := w.New("web-1", "i1", w.now)
	other := newWorld(t)
	raw, err := base64.RawURLEncoding.DecodeString(nonce)
	if err != nil {
		t.Fatal(err)
	}
	late := append([]byte(nil), raw...)
	late[7]++ // a later time, with the MAC of the earlier
	for name, c := range map[string]struct {
		nonce, host, instance string
		at                    time.Duration
		want                  string
	}{
		"of another server":   {other.New("web-1", "i1", w.now), "web-1", "i1", 0, "another server"},
		"for another host":    {nonce, "web-2", "i1", 0, "another host"},
		"for no host":         {nonce, "", "i1", 0, "another host"},
		"of another instance": {nonce, "web-1", "i2", 0, "instance"},
		"parts moved":         {w.New("web-1i", "1", w.now), "web-1", "i1", 0, "another host"},
		"over":                {nonce, "web-1", "i1", Life, "60 s"},
		"of the future":       {nonce, "web-1", "i1", -skew - time.Second, "60 s"},
		"changed":             {base64.RawURLEncoding.EncodeToString(late), "web-1", "i1", 0, "another host"},
		"empty":               {"", "web-1", "i1", 0, "none of those"},
		"cut":                 {nonce[:40], "web-1", "i1", 0, "none of those"},
		"padded":              {nonce + "=", "web-1", "i1", 0, "none of those"},
		"with a line break":   {nonce[:30] + "\n" + nonce[30:], "web-1", "i1", 0, "none of those"},
	} {
		err := w.Check(c.nonce, c.host, c.instance, w.now.Add(c.at))
		if !refused(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := w.Check(nonce, "web-1", "i1", w.now.Add(Life-time.Second)); err != nil {
		t.Errorf("in its last second: %v", err)
	}
}

// A thousand joins leave nothing once their time is over.
func TestMarksAreSwept(t *testing.T) {
	w := newWorld(t)
	for range 1000 {
		if err := w.spend(t, w.New("web-1", "i1", w.now), "web-1", "i1"); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(100 * time.Millisecond)
	}
	if n := w.marks(t); n > 710 { // of 70 s
		t.Errorf("%d marks of a thousand stay while they are made", n)
	}
	w.now = w.now.Add(Life + skew + time.Second)
	if err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.marks(t); n != 0 {
		t.Errorf("%d marks stay", n)
	}
}

// Of many who show one nonce at once, one is served.
func TestNonceAtOnce(t *testing.T) {
	w := newWorld(t)
	nonce := w.New("web-1", "i1", w.now)
	var mu sync.Mutex
	var wg sync.WaitGroup
	good := 0
	for range 16 {
		wg.Go(func() {
			if err := w.spend(t, nonce, "web-1", "i1"); err == nil {
				mu.Lock()
				good++
				mu.Unlock()
			} else if !refused(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if good != 1 {
		t.Errorf("%d were served", good)
	}
}

func TestKeyIsDamaged(t *testing.T) {
	w := newWorld(t)
	if err := w.store.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Put(keyBucket, keyName, []byte("short")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), w.set); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("opened: %v", err)
	}
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Sweep(t.Context()); err == nil {
		t.Error("swept in a state that is closed")
	}
}
