package postgres

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"narwharf/cache/state"
	"narwharf/cache/state/postgres/postgrestest"
	"narwharf/cache/state/statetest"
)

var server *postgrestest.Server

func TestMain(m *testing.M) {
	var err error
	server, err = postgrestest.Start()
	switch {
	case errors.Is(err, postgrestest.ErrMissing) && os.Getenv("NARWHARF_CI") == "":
		fmt.Println("skipped: " + err.Error())
		os.Exit(0)
	case err != nil:
		fmt.Println(err)
		os.Exit(1)
	}
	code := m.Run()
	server.Close()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			code = 1
		}
	}
	os.Exit(code)
}

// database makes an empty one.
func database(t *testing.T) string {
	t.Helper()
	name, err := server.Database()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Exec("postgres", `drop database `+name+` with (force)`); err != nil {
			t.Error(err)
		}
	})
	return name
}

func open(t *testing.T, url string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestState(t *testing.T) {
	statetest.Run(t, func(t *testing.T) (state.Store, func() state.Store) {
		url := server.URL(database(t))
		s := open(t, url)
		return s, func() state.Store {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			return open(t, url)
		}
	})
}
