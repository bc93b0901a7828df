package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"narwharf/cache/blob"
	files "narwharf/cache/blob/move"
	"narwharf/cache/state"
	rows "narwharf/cache/state/move"
	"narwharf/cmd/narwharf/server/storage"
	"narwharf/hooks/audit"
	"narwharf/hooks/replica"
	"narwharf/hooks/serverconfig"
)

// migration moves what one configuration names to what another does.
type migration struct {
	old, new *serverconfig.Config
	over     bool // the target need not be empty
	jobs     int
	log      *slog.Logger

	from       *source
	to         state.Movable // nil: the state stays
	fromFiles  blob.Store
	toFiles    blob.Store // nil: the content files stay
	ended      bool       // an earlier run has copied all
	done       []func() error
	began      time.Time
	wasFrozen  time.Time
	failed     []files.Failure
	contentAll files.Result
	stateAll   rows.Result
}

// Result is what a migration did, as JSON.
type Result struct {
	Content *files.Result `json:"content,omitempty"`
	State   *rows.Result  `json:"state,omitempty"`
	// ReadOnlyMS is for how long the old side took no writes before all was moved.
	ReadOnlyMS int64 `json:"read_only_ms"`
	Done       bool  `json:"done"`
}

// open opens both sides.
func (m *migration) open(ctx context.Context, version string) (err error) {
	if err := m.lock(); err != nil {
		return err
	}
	if m.from, err = openSource(ctx, m.old, version, m.log); err != nil {
		return err
	}
	m.done = append(m.done, m.from.close)
	if !m.sameState() {
		if err := m.openState(ctx); err != nil {
			return err
		}
	}
	if storage.Place(m.old) != storage.Place(m.new) {
		return m.openContent()
	}
	return nil
}

func (m *migration) openState(ctx context.Context) (err error) {
	if err := os.MkdirAll(m.new.DataDir, 0o755); err != nil {
		return fmt.Errorf("data_dir of the new configuration: %w", err)
	}
	if m.to, err = storage.Movable(ctx, m.new, m.name(), false, m.log); err != nil {
		return err
	}
	m.done = append(m.done, m.to.Close)
	return nil
}

func (m *migration) openContent() error {
	var end func()
	var err error
	for _, side := range []struct {
		cfg *serverconfig.Config
		to  *blob.Store
	}{{m.old, &m.fromFiles}, {m.new, &m.toFiles}} {
		if *side.to, end, err = storage.MovableContent(side.cfg, m.log); err != nil {
			return err
		}
		m.done = append(m.done, func() error { end(); return nil })
	}
	return nil
}

func (m *migration) close() (err error) {
	for _, end := range slices.Backward(m.done) {
		err = errors.Join(err, end())
	}
	return err
}

// lock keeps another migration from the same side off.
func (m *migration) lock() error {
	name := filepath.Join(m.old.DataDir, "migrate.lock")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	m.done = append(m.done, f.Close)
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another narwharf migrate is at work on %s", m.old.DataDir)
	}
	return nil
}

// sameState tells whether both configurations have one state.
func (m *migration) sameState() bool {
	if m.old.Storage.Shared() || m.new.Storage.Shared() {
		return m.old.Storage.State == m.new.Storage.State
	}
	return m.old.DataDir == m.new.DataDir
}

// ahead copies what is there while the old side goes on.
func (m *migration) ahead(ctx context.Context) error {
	if m.to != nil {
		if err := m.claimState(ctx); err != nil {
			return err
		}
	}
	if m.toFiles != nil && !m.ended {
		if err := m.claimContent(); err != nil {
			return err
		}
	}
	if m.ended {
		return nil
	}
	m.began = time.Now()
	if err := m.copyContent(ctx, time.Time{}); err != nil {
		return err
	}
	return m.copyState(ctx, "rows copied ahead")
}

// clocks is how far the clocks of a bucket and of a shared disk may be from ours.
const clocks = 15 * time.Minute

// finish copies the rest while the old side takes no writes, compares everything, and gives what moved free.
func (m *migration) finish(ctx context.Context) (err error) {
	if m.ended {
		m.wasFrozen = time.Now()
		return m.flip(ctx)
	}
	since := m.began.Add(-clocks)
	why := fmt.Sprintf("this cache is being moved to another place since %s: reads go on, try again in some minutes", time.Now().UTC().Format(time.DateTime))
	if err := m.from.freeze(ctx, &state.Freeze{Why: why}); err != nil {
		return fmt.Errorf("have %s take no writes: %w", m.from, err)
	}
	m.wasFrozen = time.Now()
	defer func() {
		if err == nil {
			return
		}
		// Without the cause's context: who was interrupted wants his server back, too.
		after := m.from.freeze(context.WithoutCancel(ctx), nil)
		if after != nil {
			err = fmt.Errorf("%w\nThe old side still takes no writes: narwharf migrate --cancel ends that (%w)", err, after)
		}
	}()
	if err := m.rest(ctx, since); err != nil {
		return err
	}
	if err := m.mark(ctx, ended+m.name()); err != nil {
		return err
	}
	return m.flip(ctx)
}

// rest copies what came since, and compares all. A NAR that was under way when the old side stopped taking writes
// may still come, without a narinfo: then it goes again.
func (m *migration) rest(ctx context.Context, since time.Time) error {
	const tries = 10
	for try := 1; ; try++ {
		if err := m.copyContent(ctx, since); err != nil {
			return err
		}
		if err := m.copyState(ctx, "rows copied"); err != nil {
			return err
		}
		if err := m.compare(ctx, since); err == nil || try == tries || !errors.Is(err, errDiffers) {
			return err
		}
	}
}

// errDiffers is that the two sides are not the same after they were made so.
var errDiffers = errors.New("they differ after they were copied: does somebody write there?")

func (m *migration) mark(ctx context.Context, mark string) error {
	if m.toFiles != nil {
		if err := m.markContent(mark); err != nil {
			return err
		}
	}
	if m.to != nil {
		return m.markState(ctx, mark)
	}
	return nil
}

// flip ends a migration: from here on the new side is the cache.
func (m *migration) flip(ctx context.Context) error {
	moved := &state.Freeze{Why: fmt.Sprintf("this cache has moved to another server on %s, and takes no writes here", time.Now().UTC().Format(time.DateTime))}
	if m.to == nil {
		moved.Why = "the content files have moved to " + storage.Place(m.new) + ": start the server with the configuration that says so"
		moved.For = storage.Place(m.new)
	}
	if err := m.from.freeze(ctx, moved); err != nil {
		return err
	}
	if m.toFiles != nil {
		if err := m.toFiles.Remove(markFile); err != nil {
			return err
		}
	}
	if m.to != nil {
		if err := m.to.Freeze(ctx, nil); err != nil {
			return err
		}
		return m.markState(ctx, "")
	}
	return nil
}

// own are the files that each side has for itself.
func (m *migration) own(name string) bool {
	return name == markFile || name == storage.PairFile && m.to != nil
}

func (m *migration) copyContent(ctx context.Context, since time.Time) error {
	if m.toFiles == nil {
		return nil
	}
	r, err := files.Sync(ctx, m.fromFiles, m.toFiles, files.Options{Skip: m.own, Since: since, Jobs: m.jobs, Step: "MiB of content files there"})
	m.failed = r.Failed
	r.Changed += m.contentAll.Changed
	r.Copied += m.contentAll.Copied
	m.contentAll = r
	if err != nil {
		return fmt.Errorf("copy the content files: %w", err)
	}
	return nil
}

// ownRow are the keys that each side has for itself: which content files it belongs to, and which servers are there.
func (m *migration) ownRow(bucket, key string) bool {
	return storage.IsPair(bucket, key) || bucket == markBucket && key == markKey || bucket == replica.Bucket
}

func (m *migration) copyState(ctx context.Context, step string) error {
	if m.to == nil {
		return nil
	}
	r, err := m.syncState(ctx, rows.Options{Step: step})
	r.Changed += m.stateAll.Changed
	m.stateAll = r
	if err != nil {
		return fmt.Errorf("copy the state: %w", err)
	}
	return nil
}

func (m *migration) syncState(ctx context.Context, o rows.Options) (r rows.Result, err error) {
	st, done, err := m.from.read(ctx)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, done()) }()
	o.Logs, o.Skip = []string{audit.Name}, m.ownRow
	return rows.Sync(ctx, st, m.to, o)
}

// compare looks at every file and every row of both sides.
func (m *migration) compare(ctx context.Context, since time.Time) error {
	if m.toFiles != nil {
		left := make(map[string]bool)
		for _, f := range m.failed {
			left[f.Name] = true
		}
		r, err := files.Sync(ctx, m.fromFiles, m.toFiles, files.Options{
			Skip: func(name string) bool { return m.own(name) || left[name] }, Since: since, Check: true, Jobs: m.jobs, Step: "MiB of content files compared",
		})
		if err == nil && r.Changed > 0 {
			err = fmt.Errorf("%d files, %s first: %w", r.Changed, r.First, errDiffers)
		}
		if err != nil {
			return fmt.Errorf("compare the content files: %w", err)
		}
	}
	if m.to != nil {
		r, err := m.syncState(ctx, rows.Options{Check: true, Step: "rows compared"})
		if err == nil && r.Changed > 0 {
			err = fmt.Errorf("%d rows, %s first: %w", r.Changed, r.First, errDiffers)
		}
		if err != nil {
			return fmt.Errorf("compare the state: %w", err)
		}
	}
	return nil
}
