package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"narwharf/hooks/api/rollouts"
)

// options are the flags.
type options struct {
	hosts       int
	switching   time.Duration
	bake, pause time.Duration
	listen, dir string
	program     string
	still       bool
	in          io.Reader
	out         io.Writer
}

func main() {
	o := options{in: os.Stdin, out: os.Stdout, program: os.Getenv("NARWHARF_BIN")}
	flag.IntVar(&o.hosts, "hosts", 200, "how many hosts there are, from 5 to 2000")
	flag.DurationVar(&o.bake, "bake", 15*time.Second, "how long a wave bakes")
	flag.DurationVar(&o.pause, "pause", 20*time.Second, "how long nothing happens between two releases of a channel, and how long it waits for somebody's yes")
	flag.DurationVar(&o.switching, "switch", 6*time.Second, "how long a host switches, at most; then it looks for half of that whether it is well")
	flag.StringVar(&o.listen, "listen", "", "`address` of the server (default a free port of 127.0.0.1)")
	flag.StringVar(&o.dir, "dir", "", "`folder` for all files, which must be empty (default a new one below the temporary folder); it is removed at the end")
	flag.BoolVar(&o.still, "still", false, "promote nothing but the first releases: the rest is typed")
	flag.Parse()
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.hosts < 5 || o.hosts > 2000 {
		return fmt.Errorf("-hosts %d is not from 5 to 2000", o.hosts)
	}
	program, err := filepath.Abs(o.program)
	if err != nil || o.program == "" {
		return errors.New("NARWHARF_BIN has to name the program: make demo builds it, and says so")
	}
	dir, remove, err := folder(o.dir)
	if err != nil {
		return err
	}
	defer remove()
	say := speaker(o.out)
	s, err := startServer(ctx, program, dir, o.listen)
	if s != nil {
		defer s.stop()
	}
	if err != nil {
		return err
	}
	f := newFleet(s, o.hosts, o.switching, say)
	defer func() { err = errors.Join(err, f.stop()) }()
	list, err := o.setUp(ctx, f)
	if err != nil {
		return err
	}
	if err := o.greet(s); err != nil {
		return err
	}
	carol, err := s.client("carol")
	if err != nil {
		return err
	}
	var playing sync.WaitGroup
	defer playing.Wait()
	if !o.still {
		st := &stage{fleet: f, carol: rollouts.Client{Client: carol}, pause: o.pause, say: say}
		for _, c := range list {
			playing.Go(func() { st.play(ctx, c) })
		}
	}
	go console(ctx, o.in, list, say) // it ends with its input
	select {
	case <-ctx.Done():
		return nil
	case <-s.gone:
		return errors.New("the server has ended")
	}
}

// setUp gives each channel its first release, hosts that run it, and then its policy.
func (o *options) setUp(ctx context.Context, f *fleet) ([]*channel, error) {
	fmt.Fprintf(o.out, "%d hosts and three channels are on their way; the first releases are uploaded\n", o.hosts)
	b, err := newBuilder(f.server.dir, f.server.url)
	if err != nil {
		return nil, err
	}
	list, err := channels(f, b, o.bake)
	if err != nil {
		return nil, err
	}
	first := map[string]*system{}
	for _, c := range list {
		if _, first[c.name], err = c.promote(ctx, false); err != nil {
			return nil, fmt.Errorf("the first release of %s: %w", c.name, err)
		}
	}
	if err := f.start(ctx, first); err != nil {
		return nil, err
	}
	for _, c := range list {
		if err := c.obey(ctx); err != nil {
			return nil, fmt.Errorf("the policy of %s: %w", c.name, err)
		}
	}
	return list, nil
}

// greet says what there is, and what to type.
func (o *options) greet(s *server) error {
	token, err := s.token("you")
	if err != nil {
		return err
	}
	env := fmt.Sprintf("export PATH=%s:$PATH NARWHARF_SERVER=%s NARWHARF_TOKEN_FILE=%s\n", quoted(filepath.Dir(s.binary)), s.url, quoted(s.file("you.token")))
	if err := os.WriteFile(s.file("env"), []byte(env), 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(o.out, `
open     %s/ui/
log in   %s

In another shell:

    . %s
    narwharf status
    narwharf rollout watch web
    narwharf rollback web --to last-good --key %s

Here: good CHANNEL, bad CHANNEL, away CHANNEL N, back CHANNEL (web, db, kiosks). Ctrl-C ends all and removes it.

`, s.url, token, s.file("env"), s.file("deploy.sec"))
	return err
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// folder makes the folder of all files, and says how it is removed.
func folder(dir string) (string, func(), error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "narwharf-demo-")
		return made, func() { _ = os.RemoveAll(made) }, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	if there, err := os.ReadDir(dir); err == nil && len(there) > 0 {
		return "", nil, fmt.Errorf("%s is not empty: all that is in the folder of a demo is removed at its end", dir)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, os.MkdirAll(dir, 0o755)
}

// speaker writes lines with the time.
func speaker(out io.Writer) func(format string, args ...any) {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, time.Now().Format("15:04:05 ")+format+"\n", args...)
	}
}

// console does what somebody types.
func console(ctx context.Context, in io.Reader, list []*channel, say func(string, ...any)) {
	for lines := bufio.NewScanner(in); lines.Scan() && ctx.Err() == nil; {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		if err := command(ctx, words, list, say); err != nil {
			say("%s: %v", strings.Join(words, " "), err)
		}
	}
}

func command(ctx context.Context, words []string, list []*channel, say func(string, ...any)) error {
	var c *channel
	for _, one := range list {
		if len(words) > 1 && one.name == words[1] {
			c = one
		}
	}
	if c == nil {
		return errors.New("good, bad, away or back, and a channel: web, db or kiosks")
	}
	switch words[0] {
	case "good", "bad":
		seq, _, err := c.promote(ctx, words[0] == "bad")
		if err == nil {
			say("%s: release %d is promoted", c.name, seq)
		}
		return err
	case "away":
		n := 1
		if len(words) > 2 {
			n, _ = strconv.Atoi(words[2]) // none are taken of what is no number
		}
		say("%s: switched off: %s", c.name, strings.Join(c.fleet.away(c.name, n), " "))
		return nil
	case "back":
		say("%s: all are on", c.name)
		return c.fleet.back(ctx, c.name)
	}
	return errors.New("good, bad, away or back")
}
