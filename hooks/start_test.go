package hooks

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cache/state/bolt"
	"narwharf/cache/state/mirror"
	"narwharf/hooks/api"
	"narwharf/hooks/host"
)

// BenchmarkStart is a server that begins with 10,000 hosts.
func BenchmarkStart(b *testing.B) {
	db, err := bolt.Open(filepath.Join(b.TempDir(), "narwharf.db"), bolt.Options{NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	log := slog.New(slog.DiscardHandler)
	set := mirror.NewSet(db, log)
	hosts, err := host.New(set, host.Options{PerCredential: 1000, Log: log, Clock: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	err = set.Update(b.Context(), nil, func(tx *mirror.Tx) error {
		for i := range 10_000 {
			name := fmt.Sprintf("web-%d", i)
			st := status(1, api.OK)
			st.Target, st.Instance, st.Machine = name, fmt.Sprintf("%032x", i), fmt.Sprintf("%064x", i)
			st.Current = "/nix/store/ip3y4kd4crf3kx79pwpbcm129f93bzds-nixos-system-" + name
			st.Wanted, st.Profile, st.Booted, st.Attempt, st.Seq = st.Current, st.Current, st.Current, "20260101-000000-1", 7
			for s := range 8 {
				st.Transitions = append(st.Transitions, api.Transition{State: api.States[s], After: int64(s)})
				st.Checks = append(st.Checks, api.Check{Name: fmt.Sprint("check-", s), Mode: api.Enforce, OK: true, Detail: "it answers"})
			}
			if _, refused, err := hosts.Report(tx, host.Caller{Name: name}, name, st, "", false, nil); err != nil || refused != nil {
				return fmt.Errorf("%w, %w", err, refused)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := New(Options{State: db, Files: &memFiles{files: map[string][]byte{}}, Log: log, Metrics: prometheus.NewRegistry()})
		if err != nil {
			b.Fatal(err)
		}
		s.Stop()
	}
}
