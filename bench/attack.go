//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"narwharf/narinfo"
	"narwharf/signing"
)

// What strangers may cost (DESIGN, section 9): memory over idle, and the p99 of others.
const (
	maxAttack  = 256 << 20
	maxSlower  = 3.0
	attackTime = 8 * time.Second
)

// An attack is one way to make a server spend much. It runs until stop is closed, and
// returns what it counted.
type attack struct {
	what string
	run  func(v *victim, stop <-chan struct{}) string
}

// attackRows measures each attack on a server of this build and of the delivery before, which
// is there only in a clone that has its commit.
func attackRows(p plan, dir string) ([]row, error) {
	binaries := []string{p.binary}
	if out, err := exec.Command(filepath.Join(".ci", "previous")).Output(); err == nil {
		binaries = append(binaries, strings.TrimSpace(string(out)))
	} else {
		progress("no previous build to compare with: %v", err)
	}
	var rows []row
	for which, binary := range binaries {
		v, err := newVictim(p, binary, filepath.Join(dir, fmt.Sprint("attack-", which)))
		if err != nil {
			return nil, err
		}
		for i, a := range attacks(p) {
			r, err := v.suffer(a)
			if err != nil {
				v.stop()
				return nil, fmt.Errorf("%s: %w", a.what, err)
			}
			if which == 0 {
				rows = append(rows, r)
			} else {
				rows[i].remark += fmt.Sprintf("; the delivery before: %s, %s", r.values[0], r.remark)
			}
		}
		v.stop()
	}
	return rows, nil
}

// victim is a server with what there is to attack.
type victim struct {
	*server
	dir                 string
	many, more, big     *narinfo.Info
	plain               string // URL of big's NAR, unpacked
	manifest            string // URL
	idle                int64
	calm                time.Duration // p99 of others without an attack
	wide                []byte        // a NAR file with a large window
	wideURL, lastServed string
}

func newVictim(p plan, binary, dir string) (v *victim, err error) {
	s, err := startNarwharf(binary, dir, "")
	if err != nil {
		return nil, err
	}
	v = &victim{server: s, dir: dir}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	many, more, big, targets, releases := 60_000, 3_000_000, int64(1<<30), 2000, 20
	if p.quick {
		many, more, big, targets, releases = 20_000, 600_000, 128<<20, 200, 3
	}
	if v.many, err = v.put("many", func(w io.Writer) error { return folder(w, many) }); err != nil {
		return nil, err
	}
	if v.more, err = v.put("more", func(w io.Writer) error { return folder(w, more) }); err != nil {
		return nil, err
	}
	if v.big, err = v.put("big", func(w io.Writer) error { return zeros(w, big) }); err != nil {
		return nil, err
	}
	v.plain = "/nar/" + v.big.Path.Hash() + "-" + v.big.NarHash.Base32() + ".nar"
	v.lastServed = fmt.Sprintf("/serve/%s/f%07d", v.many.Path.Hash(), many-1)
	pr, err := newPromoter(s, dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, targets)
	for i := range names {
		names[i] = fmt.Sprintf("h%05d", i)
	}
	for range releases {
		r, err := pr.next(names)
		if err == nil {
			_, err = pr.send(r)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := v.putManifest(many); err != nil {
		return nil, err
	}
	if err := v.widen(); err != nil {
		return nil, err
	}
	time.Sleep(3 * time.Second)
	if v.idle, _, err = v.memory(); err != nil {
		return nil, err
	}
	if v.calm, err = v.others(3 * time.Second); err != nil {
		return nil, err
	}
	progress("attack on %s: idle %s, others' p99 %s", binary, mib(v.idle), v.calm)
	return v, nil
}

// put uploads a path of which write makes the NAR.
func (v *victim) put(name string, write func(w io.Writer) error) (*narinfo.Info, error) {
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed)
	if err != nil {
		return nil, err
	}
	sum, size := sha256.New(), &tally{}
	if err := errors.Join(write(io.MultiWriter(z, sum, size)), z.Close()); err != nil {
		return nil, err
	}
	hash := narinfo.Hash(sum.Sum(nil))
	path, err := narinfo.ParseBase(hash.Base32()[:32] + "-" + name)
	if err != nil {
		return nil, err
	}
	info := &narinfo.Info{StoreDir: storeDir, Path: path, Compression: "zstd", FileHash: narinfo.Hash(sha256.Sum256(packed.Bytes())), FileSize: int64(packed.Len()), NarHash: hash, NarSize: size.n}
	info.URL = "nar/" + info.FileHash.Base32() + ".nar.zst"
	file := filepath.Join(v.dir, name+".nar.zst")
	if err := os.WriteFile(file, packed.Bytes(), 0o644); err != nil {
		return nil, err
	}
	conn, err := dial(v.server.put, v.server.token)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	return info, conn.uploadPath(&storePath{info: info, file: file})
}

type tally struct{ n int64 }

func (c *tally) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func words(dst []byte, words ...string) []byte {
	for _, w := range words {
		dst = appendWord(dst, w)
	}
	return dst
}

// folder writes a NAR with n empty files.
func folder(w io.Writer, n int) error {
	b := words(nil, "nix-archive-1", "(", "type", "directory")
	for i := range n {
		if b = words(b, "entry", "(", "name", fmt.Sprintf("f%07d", i), "node", "(", "type", "regular", "contents", "", ")", ")"); len(b) > 1<<20 {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err := w.Write(words(b, ")"))
	return err
}

// zeros writes a NAR with one file of n bytes, a multiple of 1 MiB.
func zeros(w io.Writer, n int64) error {
	head := words(nil, "nix-archive-1", "(", "type", "regular", "contents")
	for shift := 0; shift < 64; shift += 8 {
		head = append(head, byte(n>>shift))
	}
	_, err := w.Write(head)
	block := make([]byte, 1<<20)
	for ; n > 0 && err == nil; n -= int64(len(block)) {
		_, err = w.Write(block)
	}
	_, last := w.Write(words(nil, ")"))
	return errors.Join(err, last)
}

// putManifest puts a closure manifest of n paths.
func (v *victim) putManifest(n int) error {
	infos := make([]*narinfo.Info, n)
	for i := range infos {
		hash := narinfo.Hash(sha256.Sum256([]byte(fmt.Sprint(i))))
		path, err := narinfo.ParseBase(fmt.Sprintf("%s-some-package-of-a-large-closure-%d", hash.Base32()[:32], i))
		if err != nil {
			return err
		}
		infos[i] = &narinfo.Info{StoreDir: storeDir, Path: path, NarHash: hash, NarSize: int64(i + 96)}
	}
	m, err := signing.NewManifest(infos)
	if err != nil {
		return err
	}
	v.manifest = "/api/v1/closures/" + m.Digest().Hex()
	conn, err := dial(v.server.put, v.server.token)
	if err != nil {
		return err
	}
	defer conn.close()
	return conn.put(v.manifest, "text/plain", bytes.NewReader(m.Text()), int64(len(m.Text())))
}

// widen makes a small NAR file for which a decoder needs 128 MiB.
func (v *victim) widen() error {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithWindowSize(128<<20), zstd.WithEncoderConcurrency(1))
	if err == nil {
		err = zeros(z, 256<<20)
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	v.wide = out.Bytes()
	v.wideURL = "/nar/" + narinfo.Hash(sha256.Sum256(v.wide)).Base32() + ".nar.zst"
	return nil
}

// suffer runs an attack, and measures memory and the others.
func (v *victim) suffer(a attack) (row, error) {
	if err := v.forgetPeak(); err != nil {
		return row{}, err
	}
	before, err := v.cpu()
	if err != nil {
		return row{}, err
	}
	stop := make(chan struct{})
	said := make(chan string, 1)
	go func() { said <- a.run(v, stop) }()
	p99, lost := v.others(attackTime)
	close(stop)
	counted := <-said
	after, err := v.cpu()
	if err != nil {
		return row{}, err
	}
	_, peak, err := v.memory()
	if err != nil {
		return row{}, err
	}
	slower := p99.Seconds() / max(v.calm, time.Millisecond).Seconds()
	r := row{
		what: "attack: " + a.what, values: [2]string{"+" + mib(max(peak-v.idle, 0))}, cpus: [2]string{fmt.Sprintf("%.1f s", (after - before).Seconds())},
		goal: fmt.Sprintf("< 256 MiB over idle, others' p99 < %.0f ×", maxSlower), missed: peak-v.idle >= maxAttack || slower >= maxSlower || lost != nil,
		remark: fmt.Sprintf("others' p99 %s (%.1f ×); %s", ms(p99), slower, counted),
	}
	if lost != nil {
		r.remark = fmt.Sprintf("others got nothing: %v; %s", lost, counted)
	}
	progress("%s: %s, CPU %s, %s", r.what, r.values[0], r.cpus[0], r.remark)
	time.Sleep(3 * time.Second)
	return r, nil
}

// othersWord, as the first argument, has this program be the other clients of a server under
// attack: in the attackers' process they would wait for their turn among those.
const othersWord = "others"

// others asks for narinfos as other clients do, each time over a new connection, and returns
// the p99 of their time.
func (v *victim) others(how time.Duration) (time.Duration, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	var out, wrong bytes.Buffer
	cmd := exec.Command(self, othersWord, v.addr, v.many.Path.Hash(), how.String())
	cmd.Stdout, cmd.Stderr = &out, &wrong
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%w: %s", err, strings.TrimSpace(wrong.String()))
	}
	return time.ParseDuration(out.String())
}

// beOthers is what that process does: it prints the p99, and fails if any got nothing.
func beOthers(addr, hash, long string) error {
	how, err := time.ParseDuration(long)
	if err != nil {
		return err
	}
	var took []time.Duration
	for end := time.Now().Add(how); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		began := time.Now()
		if err := askNarinfo(addr, hash); err != nil {
			return err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	fmt.Print(took[len(took)*99/100])
	return nil
}

func askNarinfo(addr, hash string) error {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // what fails here fails in Read
	if _, err := fmt.Fprintf(conn, "GET /%s.narinfo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", hash); err != nil {
		return err
	}
	text, err := io.ReadAll(conn)
	if err == nil && !bytes.HasPrefix(text, []byte("HTTP/1.1 200")) {
		err = fmt.Errorf("%.80s", text)
	}
	return err
}

// crowdOf opens n connections, each with what say writes, and holds them until stop, or has
// them say it again and again.
func crowdOf(v *victim, n int, stop <-chan struct{}, again bool, say func(w io.Writer) error) string {
	var wg sync.WaitGroup
	var mu sync.Mutex
	open, answers := 0, 0
	for range n {
		wg.Go(func() {
			for {
				conn, err := net.DialTimeout("tcp", v.addr, time.Second)
				if err != nil {
					return
				}
				go func() {
					<-stop
					conn.Close()
				}()
				if say(conn) == nil {
					mu.Lock()
					open++
					mu.Unlock()
				}
				if again {
					_, _ = io.Copy(io.Discard, conn) // until the server ends it
					mu.Lock()
					answers++
					mu.Unlock()
				} else {
					<-stop
				}
				conn.Close()
				select {
				case <-stop:
					return
				default:
				}
				if !again {
					return
				}
			}
		})
	}
	wg.Wait()
	if again {
		return fmt.Sprintf("%d answers", answers)
	}
	return fmt.Sprintf("%d connections", open)
}

func asking(request string, header ...string) func(io.Writer) error {
	text := request + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + strings.Join(append(header, ""), "\r\n") + "\r\n"
	return func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}
}

func attacks(p plan) []attack {
	n := 1000
	if p.quick {
		n = 200
	}
	body := []byte(`{"error":"` + strings.Repeat("x", 1<<20))
	return []attack{
		{fmt.Sprintf("%d bodies of reports without a token, of which 1 MB comes", n/2), func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, n/2, stop, false, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "PUT /api/v1/hosts/h1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 1048570\r\n\r\n%s", body[:1<<20-20])
				return err
			})
		}},
		{fmt.Sprintf("%d readers that do not read a closure manifest", n/10), func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, n/10, stop, false, asking("GET "+v.manifest))
		}},
		{fmt.Sprintf("%d readers that do not read a release", n/2), func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, n/2, stop, false, asking("GET /api/v1/channels/"+webChannel))
		}},
		{"150 at once ask for a file of a path with a great many", func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, 150, stop, true, asking("GET "+v.lastServed))
		}},
		{"20 at once ask for the listing of millions of files", func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, 20, stop, true, asking("GET /"+v.more.Path.Hash()+".ls"))
		}},
		{"20 at once ask for the history of a channel", func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, 20, stop, true, asking("GET /api/v1/channels/"+webChannel+"/history?limit=1000"))
		}},
		{"16 at once ask for the last bytes of a compressed NAR", func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, 16, stop, true, asking("GET "+v.plain, fmt.Sprintf("Range: bytes=%d-%d", v.big.NarSize-11, v.big.NarSize-1)))
		}},
		{fmt.Sprintf("%d connections, of which half wait and half say nothing", n), func(v *victim, stop <-chan struct{}) string {
			wait := asking("GET /api/v1/channels/none", "Prefer: wait=300", `If-None-Match: "0"`)
			var odd sync.Mutex
			i := 0
			return crowdOf(v, n, stop, false, func(w io.Writer) error {
				odd.Lock()
				i++
				says := i%2 == 0
				odd.Unlock()
				if says {
					return wait(w)
				}
				return nil
			})
		}},
		{"24 uploads with a window of 128 MiB that stop half way (a token to push)", func(v *victim, stop <-chan struct{}) string {
			return crowdOf(v, 24, stop, false, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", v.wideURL, v.server.token, len(v.wide), v.wide[:len(v.wide)-8])
				return err
			})
		}},
	}
}
