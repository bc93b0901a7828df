//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"narwharf/cache/index"
	"narwharf/cache/state/bolt"
)

// Targets of a mark of as many paths as the plan says, and of what asks beside it.
const (
	maxMark       = 5 * time.Second
	maxMarkMemory = 512 << 20
	maxBeside     = 100 * time.Millisecond
)

// retentionRows measure a mark of many paths, of which no file is there, and then the
// collection of fewer, with their files.
func retentionRows(p plan, dir string) ([]row, error) {
	marked, err := markRow(p, filepath.Join(dir, "mark"))
	if err != nil {
		return nil, fmt.Errorf("mark: %w", err)
	}
	swept, err := sweepRow(p, filepath.Join(dir, "sweep"))
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	return []row{marked, swept}, nil
}

// startFilled starts a server whose index has n paths.
func startFilled(p plan, dir string, n int, files bool, backs ...int) (*server, error) {
	s, err := startNarwharf(p.binary, dir, "")
	if err != nil {
		return nil, err
	}
	s.stop()
	data := filepath.Join(dir, "data")
	if err := fillIndex(filepath.Join(data, "narwharf.db"), n, backs...); err != nil {
		return nil, err
	}
	if files {
		if err := fillFiles(data); err != nil {
			return nil, err
		}
	}
	syscall.Sync() // it was written long ago: the disk is not busy with it
	again, err := start(s.name, s.addr, dir, exec.Command(s.cmd.Path, s.cmd.Args[1:]...))
	if err != nil {
		return nil, err
	}
	again.admin = s.admin
	return again, again.ready()
}

// fillFiles writes the narinfo and a NAR file of every path that the index of a data_dir
// has. Nobody syncs them: they are as a cache has them that was written long ago.
func fillFiles(data string) error {
	s, err := bolt.Open(filepath.Join(data, "narwharf.db"), bolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	idx, err := index.Open(s, index.Options{})
	if err != nil {
		return err
	}
	cache, nar := filepath.Join(data, "cache"), make([]byte, 1000)
	if err := os.MkdirAll(filepath.Join(cache, "nar"), 0o755); err != nil {
		return err
	}
	files := index.Files{}
	err = idx.Each(func(hash string, r *index.Record, err error) error {
		if err == nil {
			err = os.WriteFile(filepath.Join(cache, hash+".narinfo"), r.Info.Append(nil), 0o644)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(cache, r.Info.URL), nar, 0o644)
		}
		files.Count, files.Size = files.Count+1, files.Size+int64(len(nar))
		return err
	})
	if err != nil {
		return err
	}
	return idx.Close(files)
}

// gc calls the API about collections.
func (s *server) gc(method, query string, answer any) error {
	req, err := http.NewRequest(method, "http://"+s.addr+"/api/v1/gc"+query, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.admin)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}

// beside asks for a narinfo again and again, each time over a new connection, until stop
// is called, which returns the slowest answer.
func beside(addr, hash string) (stop func() (time.Duration, error)) {
	ended, done := make(chan struct{}), make(chan struct{})
	var slowest time.Duration
	var err error
	go func() {
		defer close(done)
		for ; err == nil; time.Sleep(2 * time.Millisecond) {
			select {
			case <-ended:
				return
			default:
			}
			began := time.Now()
			err = askNarinfo(addr, hash)
			slowest = max(slowest, time.Since(began))
		}
	}()
	return func() (time.Duration, error) {
		close(ended)
		<-done
		return slowest, err
	}
}

// markRow measures `narwharf gc --dry-run`.
func markRow(p plan, dir string) (row, error) {
	defer remove(dir)
	s, err := startFilled(p, dir, p.paths, false, 1, 10, 100, 1000)
	if err != nil {
		return row{}, err
	}
	defer s.stop()
	own, stop := s.watchOwn(), beside(s.addr, hashParts(p.paths)[p.paths/2])
	began := time.Now()
	var plan struct {
		Uploads struct{ Paths int64 }
	}
	err = s.gc(http.MethodPost, "?dry_run=1", &plan)
	took := time.Since(began)
	slowest, err2 := stop()
	peak := own()
	if err == nil {
		err = err2
	}
	if err == nil && plan.Uploads.Paths != int64(p.paths) {
		err = fmt.Errorf("%d paths were marked", plan.Uploads.Paths)
	}
	if err != nil {
		return row{}, err
	}
	r := row{
		what:   fmt.Sprintf("gc --dry-run of %d paths with %d references", p.paths, 4*p.paths),
		values: [2]string{fmt.Sprintf("%.2f s", took.Seconds())},
		goal:   "< 5 s, peak < 512 MiB, others < 100 ms", missed: took >= maxMark || peak >= maxMarkMemory || slowest >= maxBeside,
		remark: fmt.Sprintf("peak %s beside what is mapped of the database; slowest narinfo beside it %s", mib(peak), ms(slowest)),
	}
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}

// sweepRow measures `narwharf gc` where all goes.
func sweepRow(p plan, dir string) (row, error) {
	defer remove(dir)
	s, err := startFilled(p, dir, p.sweep, true, p.sweep/50, p.sweep/25)
	if err != nil {
		return row{}, err
	}
	defer s.stop()
	var status struct {
		Running *struct{}
		Last    *struct {
			Began, Ended time.Time
			Error        string
			Gone         map[string]struct{ Paths int64 }
		}
	}
	// The last to go is the one that all others refer to.
	stop := beside(s.addr, hashParts(p.sweep)[0])
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // the roots are settled first
		if err = s.gc(http.MethodPost, "?early=1", &status); err == nil || time.Now().After(deadline) {
			break
		}
	}
	for err == nil && (status.Running != nil || status.Last == nil) {
		time.Sleep(100 * time.Millisecond)
		err = s.gc(http.MethodGet, "", &status)
	}
	slowest, _ := stop() // it is gone at the end
	if err != nil {
		return row{}, err
	}
	if n := status.Last.Gone["asked"].Paths; n != int64(p.sweep) || status.Last.Error != "" {
		return row{}, fmt.Errorf("%d paths went: %+v", n, status.Last)
	}
	took := status.Last.Ended.Sub(status.Last.Began)
	r := row{
		what:   fmt.Sprintf("gc of %d paths, each with its files, 50 deep", p.sweep),
		values: [2]string{fmt.Sprintf("%.1f s", took.Seconds())},
		goal:   "as fast as the disk; others < 100 ms", missed: slowest >= maxBeside,
		remark: fmt.Sprintf("%.0f paths a second; slowest narinfo beside it %s", float64(p.sweep)/took.Seconds(), ms(slowest)),
	}
	progress("%s: %s (%s)", r.what, r.values[0], r.remark)
	return r, nil
}
