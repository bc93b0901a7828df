//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"narwharf/narinfo"
)

const (
	crowdSize = 50
	// maxCrowd is how much longer than its parts the whole may take (DESIGN,
	// section 9).
	maxCrowd = 1.3
)

// crowdRows measures many clients that ask at once for one NAR that nobody
// has asked for before. Each sample has a new server.
func crowdRows(p plan, st *nixStore, dir string, start func(dir, root string) (*server, error), yard target) ([]row, error) {
	largest := st.paths[0]
	for _, i := range st.paths {
		if i.NarSize > largest.NarSize {
			largest = i
		}
	}
	var one, all, limit, nginx []sample
	encodes := "1 encode"
	for round := range p.crowds {
		alone, err := crowdSample(st, largest, 1, filepath.Join(dir, fmt.Sprintf("crowd-%d-1", round)), start)
		if err != nil {
			return nil, err
		}
		many, err := crowdSample(st, largest, crowdSize, filepath.Join(dir, fmt.Sprintf("crowd-%d-%d", round, crowdSize)), start)
		if err != nil {
			return nil, err
		}
		if many.encodes != 1 {
			encodes = fmt.Sprintf("%d encodes", many.encodes)
		}
		wall, err := crowd(yard.addr, packedURL(largest), crowdSize)
		if err != nil {
			return nil, fmt.Errorf("nginx: %w", err)
		}
		one = append(one, sample{value: alone.wall.Seconds(), cpu: alone.cpu.Seconds()})
		all = append(all, sample{value: many.wall.Seconds(), cpu: many.cpu.Seconds()})
		nginx = append(nginx, sample{value: wall.Seconds()})
		limit = append(limit, sample{value: alone.wall.Seconds() + wall.Seconds()})
		progress("%d clients, one cold NAR: %.3f s; one client %.3f s, nginx %.3f s; %s", crowdSize, many.wall.Seconds(), alone.wall.Seconds(), wall.Seconds(), encodes)
	}
	what := fmt.Sprintf("local store: %d clients at once ask for one NAR that is not packed yet (%.0f MB, %.0f MB packed); wall, s", crowdSize, float64(largest.NarSize)/1e6, float64(fileSize(yard, st, largest))/1e6)
	main := newRow(what, "%.3f", all, nginx, byValue)
	main.ratio = ratio{} // nginx has no encode to do
	against := pairs(pick(all, byValue), pick(limit, byValue))
	main.remark = fmt.Sprintf("%s; %s × the parts", encodes, against)
	main.goal = fmt.Sprintf("1 encode; ≤ %.1f × (one client + nginx)", maxCrowd)
	main.missed = encodes != "1 encode" || against.median > maxCrowd
	main.cpus[0] = fmt.Sprintf("%.2f s", median(pick(all, byCPU)))
	single := newRow("… one client alone", "%.3f", one, nil, byValue)
	single.cpus[0] = fmt.Sprintf("%.2f s", median(pick(one, byCPU)))
	return []row{main, single}, nil
}

func fileSize(yard target, st *nixStore, i *narinfo.Info) int64 {
	info, err := os.Stat(filepath.Join(filepath.Dir(yard.nars), packedURL(i)))
	if err != nil {
		return 0
	}
	return info.Size()
}

type crowdResult struct {
	wall, cpu time.Duration
	encodes   int
}

func crowdSample(st *nixStore, i *narinfo.Info, n int, dir string, start func(dir, root string) (*server, error)) (r crowdResult, err error) {
	s, err := start(dir, st.root)
	if err != nil {
		return r, err
	}
	defer remove(dir)
	defer s.stop()
	conn, err := dial(s.addr, s.admin)
	if err != nil {
		return r, err
	}
	defer conn.close()
	if _, err := conn.get(narinfoPath(i.Path)); err != nil { // as every client would
		return r, err
	}
	if err := warm(st.real(i)); err != nil {
		return r, err
	}
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	if r.wall, err = crowd(s.addr, packedURL(i), n); err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	after, err := s.cpu()
	if err != nil {
		return r, err
	}
	r.cpu = after - before
	text, err := conn.get("/metrics")
	if err != nil {
		return r, err
	}
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "narwharf_pack_encodes_total{") {
			k, err := strconv.Atoi(value)
			if err != nil {
				return r, fmt.Errorf("metric %s: %w", line, err)
			}
			r.encodes += k
		}
	}
	return r, nil
}

// warm reads all files below a path.
func warm(path string) error {
	return filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

// crowd has n clients ask for the same at the same moment, and returns when
// the last of them has all of it. Replies may be chunked.
func crowd(addr, path string, n int) (time.Duration, error) {
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			return 0, err
		}
		conns[i] = c
	}
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
	errs := make([]error, n)
	var wg sync.WaitGroup
	began := time.Now()
	for i, c := range conns {
		wg.Go(func() {
			if _, errs[i] = c.Write(request); errs[i] == nil {
				errs[i] = swallow(c)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("GET %s: %w", path, err)
	}
	return took, nil
}

// swallow reads a reply to the end of the connection and checks that it is
// whole, by its length or by its last chunk.
func swallow(c net.Conn) error {
	buf := make([]byte, 256<<10)
	var head, tail []byte
	var size int64 // of the body, as it is on the wire
	for begun := false; ; {
		n, err := c.Read(buf)
		p := buf[:n]
		if !begun {
			head = append(head, p...)
			p = nil
			if i := bytes.Index(head, []byte("\r\n\r\n")); i >= 0 {
				begun, head, p = true, head[:i+4:i+4], head[i+4:]
			}
		}
		size += int64(len(p))
		tail = append(tail, p[max(0, len(p)-5):]...)
		tail = tail[max(0, len(tail)-5):]
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", size, err)
		}
	}
	lower := string(bytes.ToLower(head))
	if !strings.HasPrefix(lower, "http/1.1 200 ") {
		return fmt.Errorf("not a reply of status 200: %.200q", head)
	}
	if strings.Contains(lower, "transfer-encoding: chunked") {
		if string(tail) != "0\r\n\r\n" {
			return fmt.Errorf("cut off after %d bytes", size)
		}
		return nil
	}
	_, length, _ := strings.Cut(lower, "content-length: ")
	length, _, _ = strings.Cut(length, "\r\n")
	if want, err := strconv.ParseInt(length, 10, 64); err != nil || want != size {
		return fmt.Errorf("%d bytes of %q", size, length)
	}
	return nil
}
