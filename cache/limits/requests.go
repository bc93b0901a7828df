package limits

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Requests counts requests by whom they come from: each moves its connection to its
// credential, or to the address for which a proxy asks; one of HTTP/2 counts for itself, too.
// credential is that of a request, "" if it has none that is valid.
func (g *Gate) Requests(credential func(*http.Request) string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		Begin(w, req)
		e, ok := req.Context().Value(entryKey{}).(*entry)
		if !ok {
			next.ServeHTTP(w, req)
			return
		}
		e.working.Add(1)
		defer e.working.Add(-1)
		e.show(req.TLS)
		if e.trusted {
			if a := g.forwarded(req); a.IsValid() {
				req.RemoteAddr = net.JoinHostPort(a.String(), "0") // for whom it is
			}
		}
		done, ok := g.enter(e, req, credential)
		defer done()
		if !ok {
			tooMany(w, req)
			return
		}
		next.ServeHTTP(w, req)
	})
}

// enter counts a request, and reports whether there is room for it. done is to be called
// when it is answered.
func (g *Gate) enter(e *entry, req *http.Request, credential func(*http.Request) string) (done func(), ok bool) {
	id := e.credential(req, credential)
	if req.ProtoMajor < 2 {
		return func() {}, g.count(e, req, id)
	}
	if !e.trusted {
		g.count(e, req, id)
	}
	stream := &entry{gate: g, address: e.address, trusted: e.trusted}
	if !g.admit(stream, id) {
		return func() {}, false
	}
	return stream.leave, g.count(stream, req, id)
}

// credential is whose a request is. Most requests of a connection show the same.
func (e *entry) credential(req *http.Request, of func(*http.Request) string) string {
	shown := req.Header.Get("Authorization")
	if shown == "" && req.Header.Get("Cookie") == "" && (req.TLS == nil || len(req.TLS.PeerCertificates) == 0) {
		return ""
	}
	shown += "\n" + req.Header.Get("Cookie")
	e.authMu.Lock()
	defer e.authMu.Unlock()
	if e.auth[0] != shown {
		e.auth = [2]string{shown, of(req)}
	}
	return e.auth[1]
}

// forwarded is the last address in X-Forwarded-For that is not one of our proxies.
func (g *Gate) forwarded(req *http.Request) (a netip.Addr) {
	items := strings.Split(strings.Join(req.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(items) - 1; i >= 0; i-- {
		item := strings.TrimSpace(items[i])
		next, err := netip.ParseAddr(strings.Trim(item, "[]"))
		if port, perr := netip.ParseAddrPort(item); err != nil && perr == nil {
			next, err = port.Addr(), nil
		}
		if err != nil {
			return a
		}
		if a = next.Unmap().WithZone(""); !g.trusts(a) {
			return a
		}
	}
	return a
}

// count reports whether there is room for a request among those of its kind. id is of its
// credential, "" if it has none.
func (g *Gate) count(e *entry, req *http.Request, id string) bool {
	name, limit, key2 := "", g.o.PerAddress, "limits.connections_per_address"
	if id != "" {
		name, limit, key2 = "credential "+id, g.o.PerCredential, "limits.connections_per_token"
	}
	anonymous := name == ""
	if anonymous {
		if !e.trusted {
			return true // it counts since it was accepted, or by the credential that it showed before
		}
		a := g.forwarded(req)
		if !a.IsValid() {
			return true // a proxy that says nothing, or speaks for itself
		}
		name = "address " + key(a)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	e.join(name, anonymous)
	if e.in == nil || e.name != name || e.in.conns.Len() <= limit {
		return true
	}
	g.refused.log(g.o.Log, "requests were refused: there are as many of their kind as there may be", "limit", key2, "last_from", req.RemoteAddr, "connections", e.in.conns.Len())
	e.leaveGroup()
	return false
}

// tooMany answers in words that it is too much. A client that uploads cannot send a body
// twice, and so it is not told to try again.
func tooMany(w http.ResponseWriter, req *http.Request) {
	h, status, text := w.Header(), http.StatusServiceUnavailable, words
	if req.ProtoMajor == 1 { // of HTTP/2 it would end what others of the client's requests are at
		h.Set("Connection", "close")
	}
	h.Set("Retry-After", "5")
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case strings.HasPrefix(req.URL.Path, "/api/"):
		h.Set("Content-Type", "application/json")
		body, err := json.Marshal(map[string]string{"kind": "unavailable", "message": strings.TrimSpace(words)})
		if err == nil {
			text = string(body) + "\n"
		}
	case req.Method == http.MethodPut:
		status, text = http.StatusRequestEntityTooLarge, "this server has as many connections of yours as it may have (limits.connections_per_token): copy with fewer at a time, as with --option http-connections 8\n"
	}
	w.WriteHeader(status)
	_, _ = Write(w, []byte(text)) // if that fails, nobody reads it
}
