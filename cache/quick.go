package cache

import (
	"context"
	"net"
	"net/http"
	"time"

	"narwharf/cache/front"
	"narwharf/signing/access"
)

// Quick wraps a TCP listener so that narinfos in memory are answered on the
// connection itself, before net/http sees the request. Everything else, and
// everything on a cache that is not for everybody to read, is net/http's. idle
// and header are the time-outs of the http.Server.
func (s *Server) Quick(l net.Listener, idle, header time.Duration) net.Listener {
	if s.opts.Access.Identify(&http.Request{Header: http.Header{}}).Deny(access.Scope{Kind: access.Pull}) != nil {
		return l
	}
	answered := s.metrics.requests.WithLabelValues("narinfo", http.MethodGet, "200")
	uploaded := s.metrics.sent.WithLabelValues("narinfo", sourceUploaded)
	local := s.metrics.sent.WithLabelValues("narinfo", sourceLocal)
	return &front.Listener{
		Listener: l, Lookup: s.quick, Idle: idle, HeaderTimeout: header,
		Served: func(a *front.Answer) {
			answered.Inc()
			if a.Label == sourceLocal {
				local.Add(float64(a.Body))
			} else {
				uploaded.Add(float64(a.Body))
			}
		},
	}
}

// quick returns the answer to GET /<path>, if it is a narinfo in memory. One
// that is not is asked for from net/http, which puts it there. Local paths are
// looked at again if anything in the store has changed, since that may well be
// before every answer on a machine that builds.
func (s *Server) quick(path []byte, gzip bool) *front.Answer {
	const suffix = ".narinfo"
	if len(path) != 32+len(suffix) || string(path[32:]) != suffix {
		return nil
	}
	hash := string(path[:32])
	t, old := s.signer.known(hash)
	if old != nil {
		t, _ = s.signer.get(context.Background(), hash, s.index()) // net/http meets the error again
	}
	switch {
	case t == nil:
		return nil
	case t.small != nil && gzip:
		return &t.smallTail
	}
	return &t.plainTail
}
