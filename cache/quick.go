package cache

import (
	"bytes"
	"net"
	"net/http"
	"time"

	"narwharf/cache/front"
	"narwharf/signing/access"
)

var headEnd = []byte("\r\n\r\n")

// Quick wraps a TCP listener so that narinfos in memory are answered on the
// connection itself, before net/http sees the request. Everything else, and
// everything on a cache that is not for everybody to read, is net/http's. idle
// and header are the time-outs of the http.Server.
func (s *Server) Quick(l net.Listener, idle, header time.Duration) net.Listener {
	if s.opts.Access.Identify(&http.Request{Header: http.Header{}}).Deny(access.Scope{Kind: access.Pull}) != nil {
		return l
	}
	answered := s.metrics.requests.WithLabelValues("narinfo", http.MethodGet, "200")
	sent := s.metrics.sent.WithLabelValues("narinfo", "uploaded")
	return &front.Listener{
		Listener: l, Lookup: s.quick, Idle: idle, HeaderTimeout: header,
		Served: func(answer []byte) {
			answered.Inc()
			sent.Add(float64(len(answer) - bytes.Index(answer, headEnd) - len(headEnd)))
		},
	}
}

// quick returns the answer to GET /<path>, if it is a narinfo in memory. One
// that is not is asked for from net/http, which puts it there.
func (s *Server) quick(path []byte, gzip bool) []byte {
	const suffix = ".narinfo"
	if len(path) != 32+len(suffix) || string(path[32:]) != suffix {
		return nil
	}
	t, ok := s.signer.cache.Get(string(path[:32]))
	if !ok {
		return nil
	}
	if t.small != nil && gzip {
		return t.smallTail
	}
	return t.plainTail
}
