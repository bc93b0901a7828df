package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state"
)

// heard collects topics.
type heard struct {
	mu  sync.Mutex
	all map[string]int
}

func (h *heard) hear(topics []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all == nil {
		h.all = make(map[string]int)
	}
	for _, t := range topics {
		h.all[t]++
	}
}

func (h *heard) has(topic string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[topic] > 0
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
	}
}

func put(ctx context.Context, s state.Store, key, value string) error {
	return s.Update(ctx, []string{key}, func(tx state.Tx) error {
		tx.Notify("b/" + key)
		return tx.Put("b", key, []byte(value))
	})
}

func get(t *testing.T, s state.Store, key string) (value string) {
	t.Helper()
	err := s.View(t.Context(), func(tx state.Reader) error {
		v, err := tx.Get("b", key)
		value = string(v)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return value
}

func TestTwoServers(t *testing.T) {
	name := database(t)
	a, b := open(t, server.URL(name)), open(t, server.URL(name))
	var atA, atB heard
	defer a.Watch(atA.hear)()
	defer b.Watch(atB.hear)()
	if err := put(t.Context(), a, "x", "1"); err != nil {
		t.Fatal(err)
	}
	if !atA.has("b/x") {
		t.Error("who wrote it has not heard")
	}
	eventually(t, "the notice at the other", func() bool { return atB.has("b/x") })
	if got := get(t, b, "x"); got != "1" {
		t.Errorf("the other reads %q", got)
	}

	long := strings.Repeat("long", 3000) // no NOTIFY has room for it
	if err := a.Update(t.Context(), nil, func(tx state.Tx) error { tx.Notify(long); return tx.Put("b", "y", nil) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a long topic", func() bool { return atB.has(long) })

	// A server that dies between its commit and its NOTIFY.
	err := a.run(t.Context(), `begin`, nil, func(x *tx) error { x.Notify("b/dead"); return x.Put("b", "dead", nil) })
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the notice of one that died", func() bool { return atB.has("b/dead") })
	if atB.has(state.All) {
		t.Error("something is said to be lost")
	}

	if err := server.Exec(name, `select pg_terminate_backend(pid) from pg_stat_activity where query like 'listen %'`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the news that notices were lost", func() bool { return atB.has(state.All) })
	if err := put(t.Context(), a, "after", "1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a notice after that", func() bool { return atB.has("b/after") })
}

// What was not told when a server stops is told first.
func TestCloseTells(t *testing.T) {
	name := database(t)
	a, b := open(t, server.URL(name)), open(t, server.URL(name))
	var atB heard
	defer b.Watch(atB.hear)()
	for i := range 50 {
		if err := put(t.Context(), a, fmt.Sprint(i), ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all notices", func() bool {
		for i := range 50 {
			if !atB.has(fmt.Sprintf("b/%d", i)) {
				return false
			}
		}
		return true
	})
}

// The database crashes and comes back again and again while four servers write. What was
// answered is there; what was not is there or not, and said to be uncertain if it is.
func TestDatabaseCrashes(t *testing.T) {
	name := database(t)
	url := server.URL(name)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	written, uncertain, away := map[string]bool{}, map[string]bool{}, 0
	for w := range 4 {
		s := open(t, url)
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				key := fmt.Sprintf("%d-%d", w, i)
				err := put(context.Background(), s, key, key)
				mu.Lock()
				switch {
				case err == nil:
					written[key] = true
				case errors.Is(err, state.ErrUncertain):
					uncertain[key] = true
				case errors.Is(err, state.ErrUnavailable):
					away++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		server.Down(true)
		time.Sleep(50 * time.Millisecond)
		if err := server.Up(); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	close(stop)
	wg.Wait()
	s := open(t, url)
	there := map[string]bool{}
	if err := s.Scan(t.Context(), "b", state.Range{}, func(page []state.Entry) error {
		for _, e := range page {
			there[e.Key] = true
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for key := range written {
		if !there[key] {
			t.Errorf("%s was answered and is gone", key)
		}
	}
	for key := range there {
		if !written[key] && !uncertain[key] {
			t.Errorf("%s is there, and its update failed", key)
		}
	}
	t.Logf("%d written, %d uncertain, %d times away", len(written), len(uncertain), away)
	if len(written) < 20 || away == 0 {
		t.Error("the test saw too little")
	}
}

// A connection that breaks in the commit leaves it open what became of it.
func TestUncertain(t *testing.T) {
	name := database(t)
	s := open(t, server.URL(name))
	var at heard
	defer s.Watch(at.hear)()
	if err := server.Exec(name, `
create function die() returns trigger language plpgsql as $$ begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1); return null; end $$;
create constraint trigger die after insert on narwharf_state deferrable initially deferred for each row execute function die()`); err != nil {
		t.Fatal(err)
	}
	err := put(t.Context(), s, "x", "1")
	if !errors.Is(err, state.ErrUncertain) {
		t.Errorf("the commit broke: %v", err)
	}
	if !at.has(state.All) {
		t.Error("nobody was told that it may have been")
	}
	if got := get(t, s, "x"); got != "" {
		t.Errorf("it reads %q", got)
	}
}

func TestUnavailable(t *testing.T) {
	name := database(t)
	s := open(t, server.URL(name))
	for _, c := range []struct{ what, before, after string }{
		{"read only", `alter database %s set default_transaction_read_only = on; select pg_terminate_backend(pid) from pg_stat_activity where datname = '%[1]s' and pid <> pg_backend_pid()`, `alter database %s reset default_transaction_read_only`},
		{"no connection is allowed", `alter database %s allow_connections false; select pg_terminate_backend(pid) from pg_stat_activity where datname = '%[1]s' and pid <> pg_backend_pid()`, `alter database %s allow_connections true`},
	} {
		for _, sql := range strings.Split(fmt.Sprintf(c.before, name), "; ") {
			if err := server.Exec("postgres", sql); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(t.Context(), s, "x", c.what); !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("%s: %v", c.what, err)
		}
		if err := server.Exec("postgres", fmt.Sprintf(c.after, name)); err != nil {
			t.Fatal(err)
		}
		if err := put(t.Context(), s, "x", c.what); err != nil {
			t.Errorf("after %s: %v", c.what, err)
		}
	}

	_, err := Open(t.Context(), Options{URL: "postgres://someone:secret-word@/nowhere?host=" + t.TempDir()})
	if !errors.Is(err, state.ErrUnavailable) || strings.Contains(err.Error(), "secret-word") {
		t.Errorf("no server: %v", err)
	}
}

// A database that was restored elsewhere counts its transactions anew.
func TestRestoredElsewhere(t *testing.T) {
	name := database(t)
	s := open(t, server.URL(name))
	const far = 1 << 45
	if err := server.Exec(name, fmt.Sprintf(`
update narwharf_meta set value = 'another' where key = 'system';
insert into narwharf_log values ('log', %d, 'before')`, far)); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	s = open(t, server.URL(name))
	var position uint64
	err := s.Update(t.Context(), nil, func(tx state.Tx) error {
		return tx.Append("log", func(p uint64) ([]byte, error) { position = p; return nil, nil })
	})
	if err != nil || position <= far || position >= 1<<53 {
		t.Errorf("position %d after %d, %v", position, far, err)
	}
	eventually(t, "both records", func() bool {
		var list []state.Record
		err := s.View(t.Context(), func(tx state.Reader) (err error) { list, err = tx.ReadLog("log", 0, 0); return err })
		return err == nil && len(list) == 2
	})
}

func TestSchema(t *testing.T) {
	name := database(t)
	s := open(t, server.URL(name))
	if got := s.String(); got != "postgres://narwharf/"+name+"?host="+server.Dir && !strings.HasPrefix(got, "postgres://narwharf@") {
		t.Errorf("it is called %s", got)
	}
	for _, sql := range []string{
		`create role least login`,
		`grant select, insert, update, delete on all tables in schema public to least`,
	} {
		if err := server.Exec(name, sql); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		_ = server.Exec(name, `drop owned by least`)
		_ = server.Exec(name, `drop role least`)
	}()
	least := strings.Replace(server.URL(name), "narwharf@", "least@", 1)
	l := open(t, least)
	if err := put(t.Context(), l, "x", "1"); err != nil {
		t.Errorf("with the least rights: %v", err)
	}
	_ = l.Close()
	empty := strings.Replace(least, "/"+name, "/"+database(t), 1)
	if _, err := Open(t.Context(), Options{URL: empty}); err == nil || !strings.Contains(err.Error(), "make the tables") {
		t.Errorf("without the right to make tables: %v", err)
	}
	if err := server.Exec(name, `update narwharf_meta set value = '99' where key = 'schema'`); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{URL: server.URL(name)}); err == nil || !strings.Contains(err.Error(), "use the newer narwharf") {
		t.Errorf("tables of a newer one: %v", err)
	}
	for _, bad := range []string{"postgres://%zz", "port=x"} {
		if _, err := Open(t.Context(), Options{URL: bad}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// Through PgBouncer in transaction mode, the database itself is listened to.
func TestPooler(t *testing.T) {
	name := database(t)
	url := pgbouncer(t)
	through := strings.Replace(url, "/DATABASE", "/"+name, 1)
	s, err := Open(t.Context(), Options{URL: through, Listen: server.URL(name)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var at heard
	defer s.Watch(at.hear)()
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := put(t.Context(), s, fmt.Sprint(i), fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range 40 {
		if got := get(t, s, fmt.Sprint(i)); got != fmt.Sprint(i) {
			t.Errorf("%d is %q", i, got)
		}
	}
	other := open(t, server.URL(name))
	if err := put(t.Context(), other, "other", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a notice of another", func() bool { return at.has("b/other") })

	// Listening through the pooler is late, and said so.
	var log buffer
	deaf, err := Open(t.Context(), Options{URL: through, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = deaf.Close() }()
	var late heard
	defer deaf.Watch(late.hear)()
	if err := put(t.Context(), other, "late", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a notice by the rows", func() bool { return late.has("b/late") })
	if err := put(t.Context(), deaf, "mine", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the warning", func() bool { return strings.Contains(log.String(), "state_listen has to go to the database itself") })
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// 32 clients read and write one of 10,000 hosts each time; one in five appends to a log.
func BenchmarkUpdate(b *testing.B) {
	name, err := server.Database()
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), Options{URL: server.URL(name)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	value := bytes.Repeat([]byte("x"), 800)
	jobs := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range jobs {
				host := fmt.Sprintf("host-%d", i*7919%10_000)
				err := s.Update(b.Context(), []string{"host:" + host}, func(tx state.Tx) error {
					if _, err := tx.Get("hosts", host); err != nil {
						return err
					}
					if i%5 == 0 {
						if err := tx.Append("events", func(uint64) ([]byte, error) { return value[:200], nil }); err != nil {
							return err
						}
					}
					return tx.Put("hosts", host, value)
				})
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := 0; b.Loop(); i++ {
		jobs <- i
	}
	close(jobs)
	wg.Wait()
}
