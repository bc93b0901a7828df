package bolt

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/state"
)

// The work of a crash test: each of a few writers goes through steps. Step n of a
// writer puts a key of its own, moves its counter, deletes the key of two steps ago and
// appends to a log, all or nothing.
const crashWriters = 4

func crashStep(s state.Store, w, n int) error {
	who := fmt.Sprint("w", w)
	return s.Update(context.Background(), []string{who}, func(tx state.Tx) error {
		return errors.Join(
			tx.Put("crash/"+who, fmt.Sprintf("%06d", n), []byte(strings.Repeat("x", n%5000))),
			tx.Put("crash/counter", who, []byte(fmt.Sprint(n))),
			tx.Delete("crash/"+who, fmt.Sprintf("%06d", n-2)),
			tx.Append("crash/log", func(uint64) ([]byte, error) { return []byte(fmt.Sprintf("%s %d", who, n)), nil }),
			tx.Trim("crash/log", uint64(max(0, n*crashWriters-400))),
		)
	})
}

// checkCrash holds that every step is there whole or not at all, and that of each
// writer those that were acknowledged are there. It returns how far each is.
func checkCrash(t *testing.T, s state.Store, acknowledged []int) (at []int) {
	t.Helper()
	err := s.View(t.Context(), func(tx state.Reader) error {
		last := map[string]string{}
		records, err := tx.ReadLog("crash/log", 0, 0)
		if err != nil {
			return err
		}
		for _, r := range records {
			who, n, _ := strings.Cut(string(r.Value), " ")
			last[who] = n
		}
		for w := range crashWriters {
			who := fmt.Sprint("w", w)
			v, err := tx.Get("crash/counter", who)
			if err != nil {
				return err
			}
			n := 0
			if v != nil {
				if _, err := fmt.Sscan(string(v), &n); err != nil {
					return err
				}
			}
			at = append(at, n)
			if n < acknowledged[w] {
				t.Errorf("%s was told of step %d and is at %d", who, acknowledged[w], n)
			}
			var want []string
			for i := max(1, n-1); i <= n; i++ {
				want = append(want, fmt.Sprintf("%06d %d", i, i%5000))
			}
			list, err := tx.List("crash/"+who, state.Range{})
			var got []string
			for _, e := range list {
				got = append(got, fmt.Sprintf("%s %d", e.Key, len(e.Value)))
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s at step %d has %q, %v", who, n, got, err)
			}
			if n > 0 && last[who] != fmt.Sprint(n) {
				t.Errorf("%s at step %d has said %q", who, n, last[who])
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return at
}

// TestCrashChild is the process that TestKill kills.
func TestCrashChild(t *testing.T) {
	file := os.Getenv("NARWHARF_CRASH_FILE")
	if file == "" {
		t.Skip("only as a child of TestKill")
	}
	s, err := Open(file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	from := checkCrash(t, s, make([]int, crashWriters))
	var out sync.Mutex
	var wg sync.WaitGroup
	for w := range crashWriters {
		wg.Go(func() {
			for n := from[w] + 1; ; n++ {
				if err := crashStep(s, w, n); err != nil {
					t.Error(err)
					return
				}
				out.Lock()
				fmt.Printf("ack %d %d\n", w, n)
				out.Unlock()
			}
		})
	}
	wg.Wait()
}

// A process that is killed at any moment leaves every acknowledged update, and of
// the others all or nothing.
func TestKill(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	acknowledged := make([]int, crashWriters)
	rounds := 25
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.timeout=1m")
		cmd.Env = append(os.Environ(), "NARWHARF_CRASH_FILE="+file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var kill *time.Timer
		var other []string
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var w, n int
			if _, err := fmt.Sscanf(lines.Text(), "ack %d %d", &w, &n); err != nil {
				other = append(other, lines.Text())
				continue
			}
			acknowledged[w] = n
			if kill == nil { // it has begun
				kill = time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		if kill == nil || len(other) > 0 {
			t.Fatalf("the child said %q", other)
		}
		s, err := Open(file, Options{Wait: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		checkCrash(t, s, acknowledged)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("acknowledged steps %v", acknowledged)
}

// The power goes at every write of an update: of the pages that it changes any part
// is on the disk, and the page that makes them count is not, is torn, or is whole.
func TestCrashAtEveryWrite(t *testing.T) {
	const page = 4096 // a multiple of what bbolt uses, or a part
	s, _ := open(t)
	file := s.String()
	crashed := filepath.Join(filepath.Dir(file), "crashed")
	read := func() []byte {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	after := func(content []byte, acknowledged []int) []int {
		t.Helper()
		if err := os.WriteFile(crashed, content, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Open(crashed, Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return checkCrash(t, c, acknowledged)
	}
	was := make([]int, crashWriters)
	points := 0
	for n := 1; n <= 20; n++ {
		for w := range crashWriters {
			before := read()
			if err := crashStep(s, w, n); err != nil {
				t.Fatal(err)
			}
			whole := read()
			is := slices.Clone(was)
			is[w] = n
			disk := slices.Grow(slices.Clone(before), len(whole))[:len(whole)]
			clear(disk[len(before):])
			changed := func(from, to int) (pages []int) {
				for p := from; p < min(to, len(whole)); p += page {
					if string(disk[p:p+page]) != string(whole[p:p+page]) {
						pages = append(pages, p)
					}
				}
				return pages
			}
			pages := changed(2*page, len(whole)) // the first two are the meta pages
			rand.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
			for _, p := range pages {
				copy(disk[p:p+page], whole[p:p+page])
				points++
				if got := after(disk, was); !slices.Equal(got, was) {
					t.Fatalf("before the end of step %d of writer %d: %v, want %v", n, w, got, was)
				}
			}
			for _, p := range changed(0, 2*page) {
				for cut := 8; cut < page; cut += 24 {
					torn := slices.Clone(disk)
					copy(torn[p:p+cut], whole[p:p+cut])
					points++
					if got := after(torn, was); !slices.Equal(got, was) && !slices.Equal(got, is) {
						t.Fatalf("torn at %d in step %d of writer %d: %v, want %v or %v", cut, n, w, got, was, is)
					}
					if cut > 128 {
						cut += 500
					}
				}
			}
			if was = after(whole, is); !slices.Equal(was, is) {
				t.Fatalf("at the end of step %d of writer %d: %v, want %v", n, w, was, is)
			}
		}
	}
	t.Logf("%d crashes", points)
}
