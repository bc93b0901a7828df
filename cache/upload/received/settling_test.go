package received

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"narwharf/cache/narfile"
)

func TestSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Settling
		facts := narfile.Facts{NarSize: 7}
		leave, full := make(chan struct{}), errors.New("full")
		if !s.Begin("nar/a", facts, func() error { <-leave; return full }) {
			t.Fatal("it does not begin")
		}
		if f, ok := s.Facts("nar/a"); !ok || f != facts {
			t.Error("it is not known:", f, ok)
		}
		var wait sync.WaitGroup
		waited := false
		wait.Go(func() {
			if err := s.Wait("nar/a"); !errors.Is(err, full) {
				t.Error("the error is not told:", err)
			}
			waited = true
		})
		if err := s.Wait("nar/b"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if waited {
			t.Error("it has not settled, and nobody waits")
		}
		close(leave)
		wait.Wait()
		if _, ok := s.Facts("nar/a"); ok || s.Wait("nar/a") != nil {
			t.Error("it is told twice")
		}
	})
}

// One file at a time, so many at once, and so many errors.
func TestSettlingBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Settling
		leave := make(chan struct{})
		for i := range maxSettling {
			if !s.Begin(fmt.Sprint(i), narfile.Facts{}, func() error { <-leave; return nil }) {
				t.Fatal("no room for", i)
			}
		}
		if s.Begin("more", narfile.Facts{}, func() error { t.Error("called"); return nil }) {
			t.Error("no bound")
		}
		order := ""
		go s.Begin("0", narfile.Facts{}, func() error { order += "second"; return nil })
		synctest.Wait()
		if order != "" {
			t.Error("two commits of one file at once")
		}
		close(leave)
		synctest.Wait()
		s.Rest()
		if order != "second" {
			t.Error("the second commit did not come")
		}
		for i := range maxFailed + 50 {
			s.Begin(fmt.Sprint("bad", i), narfile.Facts{}, func() error { return errors.New("bad") })
			synctest.Wait()
		}
		if n := len(s.failed); n > maxFailed {
			t.Errorf("%d errors are kept", n)
		}
	})
}
