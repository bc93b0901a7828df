package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"narwharf/cache/narfile"
	"narwharf/cache/refusal"
	"narwharf/cache/upstream/breaker"
	"narwharf/cache/upstream/pace"
	"narwharf/cache/upstream/via"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access/address"
)

// Upstream is one of the caches behind this one.
type Upstream struct {
	Config
	set     *Upstreams
	breaker breaker.Breaker
	id      atomic.Value  // string: its own in Via, if it is one of our kind
	turns   chan struct{} // holds one for each lookup under way
	pace    *pace.Pace    // of bytes of NARs
	own     *http.Transport
	outside *http.Transport // for where it leads us; asks no private address unless the upstream has one
	private atomic.Bool     // its own address is one
}

// maxLookups is how many requests for narinfos are under way at one upstream.
const maxLookups = 64

// errNone is that an upstream has answered, and has not what was asked for, or nothing that counts.
var errNone = errors.New("not there")

func newUpstream(c Config, set *Upstreams) *Upstream {
	u := &Upstream{Config: c, set: set, turns: make(chan struct{}, maxLookups), pace: pace.New(c.Rate)}
	transport := func(control func(string, string, syscall.RawConn) error) *http.Transport {
		return &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second, Control: control}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: 90 * time.Second,
			MaxIdleConnsPerHost: maxLookups, DisableCompression: true, ForceAttemptHTTP2: true,
		}
	}
	u.own = transport(func(_, to string, _ syscall.RawConn) error {
		u.private.Store(address.Private(to))
		return nil
	})
	u.outside = transport(func(_, to string, _ syscall.RawConn) error {
		if address.Private(to) && !u.private.Load() {
			return fmt.Errorf("%s leads to %s, a private address, and has none itself", u, to)
		}
		return nil
	})
	u.set.m.of(u)
	return u
}

// String is its URL.
func (u *Upstream) String() string { return u.URL.Redacted() }

// narinfo asks for the narinfo of a path. errNone: it has none that counts.
func (u *Upstream) narinfo(ctx context.Context, hash string, by []string) (*narinfo.Info, error) {
	select {
	case u.turns <- struct{}{}:
		defer func() { <-u.turns }()
	case <-ctx.Done():
		u.set.m.looked(u, lookedBusy)
		return nil, context.Cause(ctx)
	}
	info, result, err := u.ask(ctx, hash, by)
	if err == nil || !errors.Is(ctx.Err(), context.Canceled) { // else another upstream was faster
		u.set.m.looked(u, result)
	}
	return info, err
}

func (u *Upstream) ask(ctx context.Context, hash string, by []string) (*narinfo.Info, string, error) {
	var text []byte
	err := u.try(ctx, false, func() error {
		resp, err := u.get(ctx, u.URL.JoinPath(hash+".narinfo"), request{via: by})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err = io.ReadAll(narfile.Limit(resp.Body, maxNarinfo, "the narinfo"))
		return err
	})
	switch {
	case errors.Is(err, errDown):
		return nil, lookedDown, err
	case errors.Is(err, errNone):
		return nil, lookedNone, err
	case err != nil && refusal.In(err) == nil:
		return nil, lookedFailed, err
	}
	var info *narinfo.Info
	if err == nil {
		info, err = narinfo.Parse(text)
	}
	if err == nil {
		err = u.check(info, hash)
	}
	if err != nil {
		u.set.log.Warn("what an upstream says of a path does not count", "upstream", u, "path", hash, "error", err)
		return nil, lookedBad, fmt.Errorf("%w: %w", errNone, err)
	}
	return info, lookedFound, nil
}

// maxNarinfo bounds a narinfo, with some 15,000 references; maxSignatures those that are kept.
const (
	maxNarinfo    = 1 << 20
	maxSignatures = 16
)

// check says why a narinfo does not count. It takes out signatures that claim to be by a key of the
// upstream and are not.
func (u *Upstream) check(info *narinfo.Info, hash string) error {
	if info.Path.Hash() != hash || info.StoreDir != u.set.storeDir {
		return fmt.Errorf("it is of %s", info.Path.In(info.StoreDir))
	}
	text := info.AppendFingerprint(nil)
	good := false
	info.Sigs = slices.DeleteFunc(info.Sigs, func(sig string) bool {
		name, _, _ := strings.Cut(sig, ":")
		if !slices.ContainsFunc(u.Config.Keys, func(k signing.PublicKey) bool { return k.Name() == name }) {
			return false
		}
		_, ok := signing.VerifyAny(text, []string{sig}, u.Config.Keys)
		good = good || ok
		return !ok
	})
	if !good {
		return errors.New("it has no good signature by a key in public_keys")
	}
	if n := len(info.Sigs); n > maxSignatures { // those of the upstream stay
		slices.SortStableFunc(info.Sigs, func(a, b string) int {
			_, x := signing.VerifyAny(text, []string{a}, u.Config.Keys)
			_, y := signing.VerifyAny(text, []string{b}, u.Config.Keys)
			return btoi(y) - btoi(x)
		})
		info.Sigs = info.Sigs[:maxSignatures]
		slices.Sort(info.Sigs)
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// request is what one adds to a GET.
type request struct {
	via  []string
	from int64 // bytes that are there already
	nar  bool  // it may lead to another host
}

// errDown is that an upstream is not asked, since it is down.
var errDown = errors.New("it is not asked now: too many requests to it failed")

// maxRedirects is for one request.
const maxRedirects = 5

// try does a request, unless the upstream is taken to be down. That one NAR does not come says
// nothing of the rest.
func (u *Upstream) try(ctx context.Context, nar bool, do func() error) error {
	if !u.breaker.Ready(time.Now()) {
		return errDown
	}
	err := do()
	ok := err == nil || errors.Is(err, errNone) || refusal.In(err) != nil
	if !ok && errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx) // nobody waited for the end
	}
	if dial := (*net.OpError)(nil); !ok && nar && !u.breaker.Down() && (!errors.As(err, &dial) || dial.Op != "dial") {
		return err
	}
	if u.breaker.Done(time.Now(), ok) {
		if ok {
			u.set.log.Info("an upstream answers again", "upstream", u)
		} else {
			u.set.log.Error("an upstream does not answer: it is not asked for a while, and what it has counts as not there", "upstream", u, "error", err)
		}
	}
	return err
}

// get asks, and follows where that leads: to the upstream itself, and for NARs to other hosts, without the
// token. The answer is a 200 or 206, or an error, errNone among them.
func (u *Upstream) get(ctx context.Context, to *url.URL, r request) (*http.Response, error) {
	for range maxRedirects {
		own := origin(to) == origin(u.URL)
		if !own && (!r.nar || to.Scheme != "https" && to.Scheme != u.URL.Scheme) {
			return nil, fmt.Errorf("%w: %s leads to %s", errNone, u, origin(to))
		}
		resp, err := u.send(ctx, to, own, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", origin(to), err)
		}
		if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusPartialContent {
			return resp, nil
		}
		_ = resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			if to, err = to.Parse(resp.Header.Get("Location")); err != nil {
				return nil, fmt.Errorf("%w: %s redirects to what is no URL", errNone, u)
			}
		case http.StatusUnauthorized:
			u.set.log.Warn("an upstream wants a token, or another: see token_file", "upstream", u)
			return nil, fmt.Errorf("%w: %s answers %s", errNone, u, resp.Status)
		case http.StatusNotFound, http.StatusGone, http.StatusForbidden:
			return nil, fmt.Errorf("%w: %s answers %s", errNone, u, resp.Status)
		default:
			return nil, fmt.Errorf("%s answers %s", u, resp.Status)
		}
	}
	return nil, fmt.Errorf("%w: %s redirects in circles", errNone, u)
}

func (u *Upstream) send(ctx context.Context, to *url.URL, own bool, r request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	req.URL.User, req.URL.Fragment = nil, ""
	req.Header.Set("User-Agent", "narwharf")
	transport := u.outside
	if own {
		transport = u.own
		req.Header.Set("Via", via.Text(r.via, u.set.id))
		if u.Token != "" {
			req.SetBasicAuth("narwharf", u.Token)
		}
	}
	if r.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.from))
	}
	resp, err := transport.RoundTrip(req)
	if err == nil && own {
		if id := via.Last(resp.Header["Via"]); id != "" {
			u.id.Store(id)
		}
	}
	return resp, err
}

var usualPort = map[string]string{"http": "80", "https": "443"}

// origin is scheme, host and port.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = usualPort[u.Scheme]
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
