package cache

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"narwharf/cache/blob"
	"narwharf/cache/fastpath"
	"narwharf/cache/local"
	"narwharf/cache/meter"
	"narwharf/cache/narfile"
	"narwharf/cache/reply"
	"narwharf/cache/signed"
	"narwharf/narinfo"
)

// FastPath wraps a TCP listener so that narinfos in memory and NARs in files are
// answered on the connection itself, before net/http sees the request. Everything else, and
// everything on a cache that is not for everybody to read, is net/http's. idle
// and header are the time-outs of the http.Server. Call it before serving.
func (s *Server) FastPath(l net.Listener, idle, header time.Duration) net.Listener {
	if !s.public {
		return l
	}
	for kind, key := range fastKinds {
		s.fastCounts[kind] = s.metrics.Of(key)
	}
	fast := &fastpath.Listener{Listener: l, Lookup: s.fastAnswer, Served: s.answeredFast, Idle: idle, HeaderTimeout: header, Pace: s.idle}
	s.fastListeners = append(s.fastListeners, fast)
	return fast
}

// Sent waits until no NAR is being sent on the connections of FastPath, which
// http.Server.Shutdown knows nothing of.
func (s *Server) Sent(ctx context.Context) error {
	for _, l := range s.fastListeners {
		if err := l.Wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// fastLabel says which NAR an answer on the fast path is.
type fastLabel struct {
	kind fastKind
	key  narinfo.Hash // of a compressed NAR of the local store
}

type fastKind int

const (
	fastUploadedInfo fastKind = iota
	fastLocalInfo
	fastUploadedNar
	fastCompressedNar
)

var fastKinds = [...]meter.Key{
	fastUploadedInfo:  {Route: "narinfo", Method: http.MethodGet, Source: meter.Uploaded, Status: http.StatusOK},
	fastLocalInfo:     {Route: "narinfo", Method: http.MethodGet, Source: meter.Local, Status: http.StatusOK},
	fastUploadedNar:   {Route: "nar", Method: http.MethodGet, Source: meter.Uploaded, Status: http.StatusOK},
	fastCompressedNar: {Route: "packed-nar", Method: http.MethodGet, Source: meter.Local, Status: http.StatusOK},
}

// answeredFast counts an answer as ServeHTTP does.
func (s *Server) answeredFast(a *fastpath.Answer, sent int64) {
	label, _ := a.Label.(fastLabel)
	if info, _ := a.Label.(signed.Label); info.Local {
		label.kind = fastLocalInfo
	}
	c := s.fastCounts[label.kind]
	c.Requests.Inc()
	c.Sent.Add(float64(sent))
	s.metrics.Fast.Inc()
	if a.File == nil || sent == a.Size {
		return
	}
	s.metrics.Aborted.Inc()
	if label.kind == fastCompressedNar {
		s.dropUnreadable(a.File, label.key)
	}
}

// fastAnswer returns the answer to GET /<path>, if it is a narinfo in memory or a NAR
// in a file. A narinfo that is not is asked for from net/http, which puts it there.
// Local paths are looked at again if anything in the store has changed, since that
// may well be before every answer on a machine that builds.
func (s *Server) fastAnswer(path []byte, gzip bool) *fastpath.Answer {
	path, lan := bytes.CutPrefix(path, []byte(reply.LAN[1:]+"/"))
	if name, ok := bytes.CutPrefix(path, []byte("nar/")); ok {
		return s.fastNar(string(name))
	}
	const suffix = ".narinfo"
	if len(path) != 32+len(suffix) || string(path[32:]) != suffix {
		return nil
	}
	hash := string(path[:32])
	t, old := s.Cache.Signer.Known(hash)
	if old != nil {
		t, _ = s.Cache.Signer.Get(context.Background(), hash, s.Cache.Uploads.Index) // net/http meets the error again
	}
	switch {
	case t == nil, lan && t.Local != nil, s.publicPush && !s.Cache.UsedLately(hash, t): // then it has to be held first
		return nil
	case t.Gzip != nil && gzip:
		return &t.Gzipped
	}
	return &t.Plain
}

// fastNar returns the answer to GET /nar/<name>, if that is the name of an
// uploaded file, or of a local path that is known to be true and compressed. All else,
// errors too, is net/http's.
func (s *Server) fastNar(name string) *fastpath.Answer {
	if narfile.Grammar.MatchString(name) {
		if s.publicPush || !s.Cache.Uploads.AskedLately("nar/"+name) { // else net/http notes it
			return nil
		}
		f, size, err := blob.OpenHere(s.Cache.Uploads.Files, "nar/"+name)
		if err != nil {
			return nil
		}
		return s.fastFile(f, size, name[:52], fastLabel{kind: fastUploadedNar})
	}
	base, ok := strings.CutSuffix(name, local.CompressedSuffix)
	if !ok || s.Cache.Local == nil || !localGrammar.MatchString(base) {
		return nil
	}
	t, _ := s.Cache.Signer.Known(base[:32])
	if t == nil || t.Local == nil || t.Local.Name != base {
		return nil
	}
	f, digest, err := s.Cache.Local.Compressed.Open(t.Local.Info.NarHash)
	if err != nil {
		return nil
	}
	return s.fastFile(f, digest.Size, base[33:]+".zst", fastLabel{fastCompressedNar, t.Local.Info.NarHash})
}

// fastFile is the answer that getNar and sendFinished give to a plain GET.
func (s *Server) fastFile(f *os.File, size int64, etag string, label fastLabel) *fastpath.Answer {
	tail := make([]byte, 0, 256)
	tail = append(tail, "\r\nAccept-Ranges: bytes\r\nCache-Control: "...)
	tail = append(tail, s.immutable...)
	tail = append(tail, "\r\nContent-Length: "...)
	tail = strconv.AppendInt(tail, size, 10)
	tail = append(tail, "\r\nContent-Type: "+narType+"\r\nEtag: \""...)
	tail = append(tail, etag...)
	tail = append(tail, "\"\r\n\r\n"...)
	return &fastpath.Answer{Tail: tail, File: f, Size: size, Label: label}
}
