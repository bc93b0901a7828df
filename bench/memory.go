//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"narwharf/narinfo"
)

// maxGrowth is how much memory a server may need over idle for a NAR of any
// size.
const maxGrowth = 64 << 20

// memoryRows measures the resident memory of a server while one large NAR
// goes up, and then while it comes down. Idle is measured after the first
// small path went both ways, so that code which had to be loaded once is not
// taken for growth.
func memoryRows(p plan, c *closure, dir string, start func(dir string) (*server, error)) ([]row, error) {
	s, err := start(dir)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	conn, err := dial(s.put, s.token)
	if err != nil {
		return nil, err
	}
	defer conn.close()
	first := c.paths[0] // topological: it refers to nothing
	err = errors.Join(conn.uploadPath(first), conn.check("/"+first.info.URL, first.info.FileHash, first.info.FileSize))
	if err != nil {
		return nil, err
	}
	big, err := newBigNar(p.big)
	if err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	idle, _, err := s.memory()
	if err != nil {
		return nil, err
	}

	url := "/nar/" + big.fileHash.Base32() + ".nar.zst"
	steps := []struct {
		what string
		do   func() error
	}{
		{"up", func() error {
			if err := conn.put(url, "application/x-nix-nar", big.reader(), big.fileSize); err != nil {
				return err
			}
			text := big.info(url).Append(nil)
			return conn.put("/"+bigHash+".narinfo", "text/x-nix-narinfo", bytes.NewReader(text), int64(len(text)))
		}},
		{"down", func() error { return conn.check(url, big.fileHash, big.fileSize) }},
	}
	var out []row
	for _, step := range steps {
		if err := s.forgetPeak(); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		r, err := s.peakRow(fmt.Sprintf("memory while a NAR of %s goes %s", mib(p.big), step.what), idle, time.Since(began))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// peakRow compares the peak since forgetPeak with idle.
func (s *server) peakRow(what string, idle int64, took time.Duration) (row, error) {
	_, peak, err := s.memory()
	if err != nil {
		return row{}, err
	}
	progress("%s, %s: idle %s, peak %s, %s", s.name, what, mib(idle), mib(peak), took.Round(time.Millisecond))
	return row{
		what:   fmt.Sprintf("%s (peak; idle %s; took %.1f s)", what, mib(idle), took.Seconds()),
		values: [2]string{mib(peak)},
		goal:   "< 64 MiB over idle",
		missed: peak-idle >= maxGrowth,
		remark: mib(peak-idle) + " over idle",
	}, nil
}

// localMemoryRows measures a new server's memory while the large NAR of a local
// path goes down: as it is, and then packed for the first time.
func localMemoryRows(st *nixStore, dir string, start func(dir, root string) (*server, error)) ([]row, error) {
	s, err := start(dir, st.root)
	if err != nil {
		return nil, err
	}
	defer remove(dir)
	defer s.stop()
	conn, err := dial(s.addr, "")
	if err != nil {
		return nil, err
	}
	defer conn.close()
	first := st.paths[0]
	for _, url := range []string{plainURL(first), packedURL(first)} {
		if _, err := conn.save(url, os.DevNull, false); err != nil {
			return nil, err
		}
	}
	time.Sleep(time.Second)
	idle, _, err := s.memory()
	if err != nil {
		return nil, err
	}
	var out []row
	for _, step := range []struct{ what, url string }{{"as it is", plainURL(st.big)}, {"packed for the first time", packedURL(st.big)}} {
		if err := s.forgetPeak(); err != nil {
			return nil, err
		}
		began := time.Now()
		if _, err := conn.save(step.url, os.DevNull, false); err != nil {
			return nil, err
		}
		r, err := s.peakRow(fmt.Sprintf("local store: memory while a NAR of %s goes down, %s", mib(st.big.NarSize), step.what), idle, time.Since(began))
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// A bigNar is a NAR of one large file as zstd would hold it, made from one
// block again and again: the block is packed once, as a frame of its own (as
// Nix >= 2.35 does with its frames of 16 MiB), so that sending it costs
// nothing.
type bigNar struct {
	head, body, tail []byte // packed frames; body comes times times
	times            int
	size, fileSize   int64
	hash, fileHash   narinfo.Hash
}

const (
	bigBlock = 32 << 20
	bigHash  = "b1gb1gb1gb1gb1gb1gb1gb1gb1gb1gb1"
)

// newBigNar makes a NAR whose file has about size bytes.
func newBigNar(size int64) (*bigNar, error) {
	b := &bigNar{times: int(max(1, size/bigBlock))}
	block := make([]byte, bigBlock)
	random := rand.NewChaCha8([32]byte([]byte("any seed of exactly 32 bytes do.")))
	_, _ = random.Read(block) // never fails
	for i := range block[:bigBlock/4] {
		block[i] = "0123456789abcdef"[block[i]&15] // a part that can be packed
	}
	var head []byte
	for _, word := range []string{"nix-archive-1", "(", "type", "regular", "contents"} {
		head = appendWord(head, word)
	}
	head = binary.LittleEndian.AppendUint64(head, uint64(b.times)*bigBlock)
	tail := appendWord(nil, ")") // the body needs no padding

	var err1, err2, err3 error
	b.head, err1 = frame(head)
	b.body, err2 = frame(block)
	b.tail, err3 = frame(tail)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.fileHash, b.fileSize = sum(b.reader()) })
	wg.Go(func() { b.hash, b.size = sum(repeated(head, block, tail, b.times)) })
	wg.Wait()
	return b, nil
}

func (b *bigNar) reader() io.Reader { return repeated(b.head, b.body, b.tail, b.times) }

func (b *bigNar) info(url string) *narinfo.Info {
	return &narinfo.Info{
		StoreDir: storeDir, Path: bigHash + "-big", URL: url[1:], Compression: "zstd",
		FileHash: b.fileHash, FileSize: b.fileSize, NarHash: b.hash, NarSize: b.size,
	}
}

// appendWord appends a string as NARs have them: length, bytes, padding to 8.
func appendWord(dst []byte, word string) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(word)))
	dst = append(dst, word...)
	return append(dst, make([]byte, -len(word)&7)...)
}

// frame packs data as a stream, that is with a window and without a length,
// as uploads are.
func frame(data []byte) ([]byte, error) {
	var out bytes.Buffer
	z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	_, err = z.Write(data)
	err = errors.Join(err, z.Close())
	return out.Bytes(), err
}

func repeated(head, body, tail []byte, times int) io.Reader {
	parts := []io.Reader{bytes.NewReader(head)}
	for range times {
		parts = append(parts, bytes.NewReader(body))
	}
	return io.MultiReader(append(parts, bytes.NewReader(tail))...)
}

func sum(r io.Reader) (narinfo.Hash, int64) {
	h := sha256.New()
	n, _ := io.Copy(h, r) // memory to memory
	return narinfo.Hash(h.Sum(nil)), n
}
