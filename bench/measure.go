//go:build linux

package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"narwharf/bench/load"
)

// measureAll runs every section of the plan with all its files in dir.
func measureAll(p plan, dir string) (*report, error) {
	began := time.Now()
	n, err := findNginx()
	if err != nil {
		return nil, err
	}
	subject := n.startOne
	var local func(dir, root string) (*server, error) // nil if it serves no Nix store
	r := &report{names: [2]string{"Narwharf", "nginx"}}
	if p.itself {
		if !n.dav {
			return nil, errors.New("-itself needs an nginx with the dav module")
		}
		r.names[0] = "nginx itself"
	} else {
		binary, err := findNarwharf(dir)
		if err != nil {
			return nil, err
		}
		p.binary = binary
		local = func(dir, root string) (*server, error) { return startNarwharf(binary, dir, root) }
		subject = func(dir string) (*server, error) { return local(dir, "") }
	}
	if p.wants("hosts") || p.wants("waves") || p.wants("page") || p.wants("scale") {
		// Before the minutes that the rest takes: there may be no room.
		if err := load.RoomFor(p.hosts); err != nil {
			return nil, err
		}
	}
	r.facts = append(hostFacts(dir, n), "command: `go run ./bench"+p.flags()+"`, at commit "+revision())

	if p.wants("narinfo") || p.wants("nar") || p.wants("proxies") || p.wants("upload") || p.wants("memory") || p.wants("store") || p.wants("first") {
		if err := r.addCache(p, dir, subject, local, n); err != nil {
			return nil, err
		}
	}
	for _, section := range []struct {
		name string
		rows func(plan, string, func(string) (*server, error)) ([]row, error)
	}{{"hosts", hostRows}, {"waves", waveRows}, {"page", pageRows}} {
		if !p.wants(section.name) || p.itself {
			continue
		}
		rows, err := section.rows(p, filepath.Join(dir, section.name), p.startForHosts)
		if err != nil {
			return nil, err
		}
		r.rows = append(r.rows, rows...)
	}
	if p.wants("scale") && !p.itself {
		rows, err := scaleRows(p, filepath.Join(dir, "scale"))
		if err != nil {
			return nil, err
		}
		r.rows = append(r.rows, rows...)
	}
	if p.wants("retention") && !p.itself {
		rows, err := retentionRows(p, filepath.Join(dir, "retention"))
		if err != nil {
			return nil, err
		}
		r.rows = append(r.rows, rows...)
	}
	if p.wants("attack") && !p.itself {
		rows, err := attackRows(p, filepath.Join(dir, "attack"))
		if err != nil {
			return nil, err
		}
		r.rows = append(r.rows, rows...)
	}
	progress("done in %s", time.Since(began).Round(time.Second))
	return r, nil
}

// startForHosts is a server for hosts that all have one token.
func (p plan) startForHosts(dir string) (*server, error) {
	s, err := startNarwharf(p.binary, dir, "", fmt.Sprintf("hosts_per_credential = %d\nconnections_per_token = %d", p.hosts, p.hosts+1000))
	if err != nil { // the last delivery knows no such limit
		remove(dir)
		s, err = startNarwharf(p.binary, dir, "")
	}
	return s, err
}

// addCache runs the sections that have a closure.
func (r *report) addCache(p plan, dir string, subject func(string) (*server, error), local func(dir, root string) (*server, error), n *nginx) error {
	began := time.Now()
	// The large NAR in the cache and the closure, three times for a while; or
	// the large file, three times.
	if err := needDisk(dir, max(p.big, 3*p.bigFile)+4*p.size); err != nil {
		return err
	}
	if (p.wants("store") || p.wants("first")) && local != nil { // not after minutes that end in an error
		if _, err := findNix(filepath.Join(dir, "home"), dir); err != nil {
			return err
		}
	}
	if local != nil && p.storeIsThere() {
		return r.addStore(p, nil, dir, local, n)
	}
	c, err := makeClosure(filepath.Join(dir, "closure"), p.size, p.count)
	if err != nil {
		return err
	}
	fact := fmt.Sprintf("closure: %d paths made of installed Debian packages, NARs %.0f MB, packed with zstd %.0f MB, %d references",
		len(c.paths), float64(c.narSize)/1e6, float64(c.fileSize)/1e6, c.references())
	r.facts = append(r.facts, fact)
	progress("%s (%s)", fact, time.Since(began).Round(time.Second/10))

	if p.wants("upload") {
		starts := []func(string) (*server, error){subject}
		if n.dav {
			starts = append(starts, n.startOne)
		}
		rows, err := uploadRows(p, c, dir, starts...)
		if err != nil {
			return err
		}
		verify, err := verifyRow(c)
		if err != nil {
			return err
		}
		r.rows = append(r.rows, append(rows, verify)...)
	}
	if p.wants("narinfo") || p.wants("nar") {
		rows, err := readRows(p, c, dir, subject, n)
		if err != nil {
			return err
		}
		r.rows = append(rows, r.rows...)
	}
	if p.wants("proxies") && p.binary != "" {
		rows, err := proxyRows(p, c, filepath.Join(dir, "proxies"))
		if err != nil {
			return err
		}
		r.rows = append(r.rows, rows...)
	}
	if (p.wants("store") || p.wants("first")) && local != nil {
		if err := r.addStore(p, c, dir, local, n); err != nil {
			return err
		}
	}
	if p.wants("memory") && !p.itself {
		rows, err := memoryRows(p, c, filepath.Join(dir, "memory"), subject)
		if err != nil {
			return err
		}
		r.rows = append(r.rows, rows...)
	}
	return nil
}

// storeIsThere tells whether all that is measured is a store of an earlier run, which needs no closure.
func (p plan) storeIsThere() bool {
	for name := range p.only {
		if name != "store" && name != "first" {
			return false
		}
	}
	_, err := os.Stat(filepath.Join(p.store, "paths"))
	return p.store != "" && len(p.only) > 0 && err == nil
}

// addStore runs the section of a local Nix store.
func (r *report) addStore(p plan, c *closure, dir string, local func(dir, root string) (*server, error), n *nginx) error {
	began := time.Now()
	st, err := makeStore(cmp.Or(p.store, filepath.Join(dir, "store")), c, p.bigFile)
	if err != nil {
		return err
	}
	fact := fmt.Sprintf("local store: such a closure (%d paths), a file of %s and %d small files (NAR %.0f MB), copied into a private store by Nix %s; %s",
		len(st.paths), mib(p.bigFile), manyFiles, float64(st.many.NarSize)/1e6, st.nix[len(st.nix)-1].version, chilling())
	r.facts = append(r.facts, fact)
	progress("%s (%s)", fact, time.Since(began).Round(time.Second/10))
	if p.prepare {
		return nil
	}
	if p.wants("store") {
		rows, err := localRows(p, st, dir, local, n)
		if err != nil {
			return err
		}
		r.rows = append(r.rows, rows...)
	}
	if !p.wants("first") {
		return nil
	}
	rows, err := firstRows(p, st, filepath.Join(dir, "first"), n)
	r.rows = append(r.rows, rows...)
	return err
}

// readRows uploads the closure once, lets nginx serve the same narinfos and
// the very same NAR files, checks what both say, and measures.
func readRows(p plan, c *closure, dir string, start func(string) (*server, error), n *nginx) ([]row, error) {
	subject, err := start(filepath.Join(dir, "subject"))
	if err != nil {
		return nil, err
	}
	defer remove(filepath.Join(dir, "subject"))
	defer subject.stop()
	if _, err := upload(subject.put, subject.token, c, 8); err != nil {
		return nil, err
	}
	texts, err := checkAll(subject.addr, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", subject.name, err)
	}
	yard, err := n.start(filepath.Join(dir, "yardstick"))
	if err != nil {
		return nil, err
	}
	defer yard.stop()
	if err := yard.layOut(subject.nars, texts); err != nil {
		return nil, err
	}
	if _, err := checkAll(yard.addr, c); err != nil {
		return nil, fmt.Errorf("nginx: %w", err)
	}
	if err := syncDisk(dir); err != nil {
		return nil, err
	}
	var out []row
	if p.wants("narinfo") {
		rows, err := narinfoRows(p, c, texts, subject, yard)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	if p.wants("nar") {
		rows, err := narRows(p, c, subject, yard)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

func (p plan) wants(section string) bool { return len(p.only) == 0 || p.only[section] }

// flags are the flags of the command that gives this plan.
func (p plan) flags() string {
	var b strings.Builder
	if p.quick {
		b.WriteString(" -quick")
	}
	if p.itself {
		b.WriteString(" -itself")
	}
	if len(p.only) > 0 {
		b.WriteString(" -only …")
	}
	return b.String()
}

func (c *closure) references() int {
	n := 0
	for _, p := range c.paths {
		n += len(p.refs)
	}
	return n
}
