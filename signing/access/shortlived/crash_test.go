package shortlived

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"narwharf/cache/state"
	"narwharf/cache/state/bolt"
	"narwharf/cache/state/memory"
	"narwharf/signing/access"
)

// faulty is a state in which one write fails, and with it its transaction.
type faulty struct {
	state.Store
	left *atomic.Int64 // writes up to it
}

func (f faulty) Update(ctx context.Context, locks []string, fn func(tx state.Tx) error) error {
	return f.Store.Update(ctx, locks, func(tx state.Tx) error { return fn(faultyTx{tx, f.left}) })
}

type faultyTx struct {
	state.Tx
	left *atomic.Int64
}

var errFire = errors.New("disk on fire")

func (f faultyTx) write() error {
	if f.left.Add(-1) == 0 {
		return errFire
	}
	return nil
}

func (f faultyTx) Put(bucket, key string, value []byte) error {
	return errors.Join(f.write(), f.Tx.Put(bucket, key, value))
}

func (f faultyTx) Delete(bucket, key string) error {
	return errors.Join(f.write(), f.Tx.Delete(bucket, key))
}

// Whichever write fails, nothing was done, in the state and in memory, and it can be done again.
func TestFailsAtEachWrite(t *testing.T) {
	for name, change := range map[string]func(c Change) error{
		"issue": func(c Change) error {
			_, _, err := c.Issue(grant(ofHostName("web-2")), noon.Add(time.Hour), "")
			return err
		},
		"a renewal": func(c Change) error {
			_, is, err := c.Issue(grant(ofHostName("web-1")), noon.Add(time.Hour), "")
			_, err2 := c.RevokeHost("web-1", is.ID)
			return errors.Join(err, err2)
		},
		"revoke": func(c Change) error {
			_, err := c.RevokeRule("github/main")
			return err
		},
	} {
		db, left := memory.New((&clock{noon}).Now), new(atomic.Int64)
		s := open(t, faulty{db, left})
		issue(t, s, grant(), noon.Add(time.Hour))
		issue(t, s, grant(), noon.Add(time.Hour))
		issue(t, s, grant(ofHostName("web-1")), noon.Add(time.Hour))
		was := fmt.Sprint(s.List())
		n := int64(1)
		for ; ; n++ {
			left.Store(n)
			err := s.Update(t.Context(), change)
			consistent(t, db)
			is, fresh := fmt.Sprint(s.List()), fmt.Sprint(open(t, db).List())
			if is != fresh {
				t.Fatalf("%s: memory has %s and the state %s", name, is, fresh)
			}
			if left.Load() > 0 {
				if err != nil || is == was {
					t.Errorf("%s: %v, %s", name, err, is)
				}
				break
			}
			if !errors.Is(err, errFire) || is != was {
				t.Fatalf("%s: after a fault at write %d: %v, %s, and was %s", name, n, err, is, was)
			}
		}
		if n < 4 {
			t.Errorf("%s made %d writes", name, n-1)
		}
	}
}

// TestCrashChild is the process that TestKill kills: it renews the tokens of some hosts.
func TestCrashChild(t *testing.T) {
	file := os.Getenv("NARWHARF_CRASH_FILE")
	if file == "" {
		t.Skip("only as a child of TestKill")
	}
	db, err := bolt.Open(file, bolt.Options{Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, db)
	for n := 0; ; n++ {
		host := fmt.Sprintf("web-%d", n%4)
		var id string
		err := s.Update(t.Context(), func(c Change) error {
			_, is, err := c.Issue(grant(ofHostName(host)), c.Time.Add(time.Hour), "")
			_, err2 := c.RevokeHost(host, is.ID)
			id = is.ID
			return errors.Join(err, err2)
		})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("ack %s %s\n", host, id)
	}
}

// A process that is killed at any moment leaves each host with one token: the last that it was told of,
// or the next.
func TestKill(t *testing.T) {
	file := filepath.Join(t.TempDir(), "db")
	last := map[string]string{}
	rounds := 10
	if testing.Short() {
		rounds = 2
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
		for lines := bufio.NewScanner(out); lines.Scan(); {
			words := strings.Fields(lines.Text())
			if len(words) != 3 || words[0] != "ack" {
				t.Fatalf("the child said %q", lines.Text())
			}
			last[words[1]] = words[2]
			if kill == nil { // it has begun
				kill = time.AfterFunc(time.Duration(rand.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		db, err := bolt.Open(file, bolt.Options{Wait: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		consistent(t, db)
		of := map[string][]string{}
		for _, is := range open(t, db).List() {
			of[is.Grant.Host] = append(of[is.Grant.Host], is.ID)
		}
		other := 0
		for host, id := range last {
			if len(of[host]) != 1 {
				t.Errorf("%s has the tokens %q", host, of[host])
			} else if of[host][0] != id {
				other++
			}
		}
		if other > 1 {
			t.Errorf("of %d hosts the token is not the one that was told: %v, %v", other, last, of)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

var _ access.ShortLookup = (*Store)(nil)
