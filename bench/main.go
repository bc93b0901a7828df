//go:build linux

package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A plan is how long and how large everything is.
type plan struct {
	quick, itself bool
	only          map[string]bool // sections; empty is all

	size    int64         // of the closure's files
	count   int           // of its paths, at least
	rounds  int           // of reads
	uploads int           // rounds of uploads
	sample  time.Duration // of reads
	big     int64         // size of the one large NAR
	hosts   int           // that follow a channel
	wakes   int           // promotes of each kind
	paths   int           // in the index of a server that starts
	starts  int           // of it
	sweep   int           // paths that are collected with their files
	arrival time.Duration // within which the hosts come
	settle  time.Duration // in which they poll before memory is read
	waiting time.Duration // in which they wait for leave
	looks   int           // of a browser at the page
	looking int           // seconds that people look at it
	busy    time.Duration // in which clients write through two servers

	binary      string // of Narwharf; empty: nginx is measured against itself
	bigFile     int64  // size of the large file in the local store
	localRounds int    // of reads of local paths
	colds       int    // rounds with nothing in memory
	crowds      int    // rounds of many clients and one NAR
	firsts      int    // rounds of first pulls and uploads by a real Nix
	store       string
	prepare     bool // make the store, measure nothing
	peers       []peer
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == othersWord {
		if err := beOthers(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	quick := flag.Bool("quick", false, "measure for less than a minute, with a small closure: to see whether it works")
	write := flag.Bool("write", false, "write the result to bench/PERFORMANCE.md, too")
	only := flag.String("only", "", "comma-separated sections to run, of upload, narinfo, nar, proxies, store, first, memory, hosts, waves, page, scale, retention, attack (default all)")
	itself := flag.Bool("itself", false, "measure nginx against itself: how far from 1 are ratios by chance?")
	work := flag.String("work", os.TempDir(), "folder for temporary files, some GiB, on a real disk")
	store := flag.String("store", "", "keep the local store in this folder, and take the one that is there (default a temporary one)")
	prepare := flag.Bool("prepare", false, "make the store of -store and end: for a -peer that has to serve it")
	var peers []peer
	firsts := flag.Int("firsts", 0, "rounds of the section first (default 5, with -quick 1)")
	flag.Func("peer", "NAME=URL: measure another server of the same local store, too, which runs already (may be repeated)", func(v string) error {
		p, err := parsePeer(v)
		peers = append(peers, p)
		return err
	})
	flag.Parse()

	p := plan{
		quick: *quick, itself: *itself, only: map[string]bool{}, size: 1000 << 20, count: 300, rounds: 13, uploads: 5, sample: 1200 * time.Millisecond, big: 4 << 30,
		paths: 1_000_000, starts: 3, sweep: 100_000, hosts: 10_000, wakes: 5, arrival: 5 * time.Second, settle: 65 * time.Second, waiting: time.Minute, looks: 9, looking: 30, busy: 30 * time.Second,
		bigFile: 1 << 30, localRounds: 9, colds: 5, crowds: 5, firsts: 5, store: *store, prepare: *prepare, peers: peers,
	}
	if p.quick {
		p.size, p.count, p.rounds, p.uploads, p.sample, p.big = 100<<20, 100, 3, 1, 400*time.Millisecond, 256<<20
		p.paths, p.starts, p.sweep = 20_000, 1, 2000
		p.hosts, p.wakes, p.arrival, p.settle, p.waiting = 1000, 2, time.Second, 3*time.Second, 20*time.Second
		p.looks, p.looking, p.busy = 3, 5, 5*time.Second
		p.bigFile, p.localRounds, p.colds, p.crowds, p.firsts = 128<<20, 3, 1, 1, 1
	}
	p.firsts = cmp.Or(*firsts, p.firsts)
	for name := range strings.SplitSeq(*only, ",") {
		if name != "" {
			p.only[name] = true
		}
	}
	if p.prepare {
		p.only = map[string]bool{"store": true}
	}
	if err := run(p, *work, *write); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(p plan, work string, write bool) error {
	page := filepath.Join("bench", "PERFORMANCE.md")
	if write { // not after minutes of measuring
		if _, err := os.Stat(page); err != nil {
			return fmt.Errorf("-write updates a file: run it in the root of the source tree: %w", err)
		}
	}
	dir, err := os.MkdirTemp(work, "narwharf-bench-")
	if err != nil {
		return err
	}
	defer remove(dir)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop // the servers die with us
		remove(dir)
		os.Exit(130)
	}()

	r, err := measureAll(p, dir)
	if err != nil {
		return err
	}
	r.writeTo(os.Stdout)
	if write {
		return r.update(page)
	}
	return nil
}

// remove takes a temporary folder away, and says so if it cannot.
func remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		progress("%v", err)
	}
}

// progress tells whoever waits what is going on.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
