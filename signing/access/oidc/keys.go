package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"narwharf/signing/access"
)

// algorithms are those that are taken.
var algorithms = []string{gooidc.RS256, gooidc.ES256, gooidc.ES384, gooidc.EdDSA}

var signatureAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.EdDSA}

// When an issuer is asked for its keys; see the package comment.
const (
	fetchTimeout = 10 * time.Second
	fetchPause   = 30 * time.Second
	fetchAgain   = time.Hour
	keysLast     = 24 * time.Hour
)

// maxWaiting is how many wait for an answer of the issuer at once; others come again.
const maxWaiting = 64

// maxTried is how many keys are tried where the JWT does not say which.
const maxTried = 4

// keySet is the keys of an issuer.
type keySet struct {
	fetch func(ctx context.Context) ([]jose.JSONWebKey, error)
	clock func() time.Time
	log   func(err error) // told of each fetch

	ctx  context.Context // of fetches: ends with close
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	keys    []jose.JSONWebKey
	fetched time.Time // when keys were got
	tried   time.Time // when they were asked for, last
	failed  error     // of that
	waiting int
	done    chan struct{} // closed when the fetch under way ends; nil if there is none
}

func newKeySet(clock func() time.Time, log func(error), fetch func(context.Context) ([]jose.JSONWebKey, error)) *keySet {
	k := &keySet{fetch: fetch, clock: clock, log: log}
	k.ctx, k.stop = context.WithCancel(context.Background())
	return k
}

func (k *keySet) close() {
	k.stop()
	k.work.Wait()
}

// check says whether a key of the issuer has signed a JWT. go-oidc's own verifier is not used: its
// keys have no bounds (see the package comment), it knows one audience and no skew, and hides why it fails.
func (k *keySet) check(ctx context.Context, jwt string, t *token) error {
	signed, err := jose.ParseSignedCompact(jwt, signatureAlgorithms)
	if err != nil {
		return refuse("malformed", "the JWT cannot be read: copy it again, whole")
	}
	keys, err := k.find(ctx, t.kid, t.alg)
	if err != nil {
		return err
	}
	for i := range keys {
		// What was signed has to be what we have read.
		if payload, err := signed.Verify(&keys[i]); err == nil && string(payload) == t.payload {
			return nil
		}
	}
	return refuse("signature", "the JWT's signature is wrong")
}

// find returns the keys that may have signed a JWT, at least one.
func (k *keySet) find(ctx context.Context, kid, alg string) ([]jose.JSONWebKey, error) {
	keys, fresh := k.known(kid, alg)
	if len(keys) == 0 || !fresh {
		if err := k.renew(ctx); err != nil {
			return nil, err
		}
		keys, fresh = k.known(kid, alg)
	}
	switch {
	case !fresh:
		return nil, k.away()
	case len(keys) == 0:
		return nil, refuse("key", "the JWT is signed by a key that its issuer does not list")
	case len(keys) > maxTried:
		return nil, refuse("key", "the JWT does not say which of the issuer's keys has signed it (kid)")
	}
	return keys, nil
}

// known are the keys in memory that may have signed a JWT, and whether they may still count. Where they
// are not the youngest, others are asked for meanwhile.
func (k *keySet) known(kid, alg string) (keys []jose.JSONWebKey, fresh bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	age := k.clock().Sub(k.fetched)
	if !k.fetched.IsZero() && age > fetchAgain {
		k.begin()
	}
	for _, key := range k.keys {
		if (kid == "" || key.KeyID == kid) && signs(&key, alg) {
			keys = append(keys, key)
		}
	}
	return keys, !k.fetched.IsZero() && age <= keysLast
}

// signs tells whether signatures of an algorithm can be a key's.
func signs(key *jose.JSONWebKey, alg string) bool {
	if key.Algorithm != "" && key.Algorithm != alg {
		return false
	}
	switch p := key.Key.(type) {
	case *rsa.PublicKey:
		return alg == gooidc.RS256
	case *ecdsa.PublicKey:
		return p.Curve.Params().BitSize == map[string]int{gooidc.ES256: 256, gooidc.ES384: 384}[alg]
	case ed25519.PublicKey:
		return alg == gooidc.EdDSA
	}
	return false
}

// renew asks the issuer, or waits for who does, unless it was asked just now.
func (k *keySet) renew(ctx context.Context) error {
	k.mu.Lock()
	done := k.begin()
	if done == nil {
		k.mu.Unlock()
		return nil
	}
	if k.waiting >= maxWaiting {
		k.mu.Unlock()
		return fmt.Errorf("%w: %d others wait for the keys of its issuer", access.ErrUnchecked, maxWaiting)
	}
	k.waiting++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.waiting--
		k.mu.Unlock()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", access.ErrUnchecked, ctx.Err())
	}
}

// begin begins to ask the issuer, if it is time; nil if it is not. It is for mu's holder.
func (k *keySet) begin() <-chan struct{} {
	if k.done != nil {
		return k.done
	}
	now := k.clock()
	if k.ctx.Err() != nil || !k.tried.IsZero() && now.Sub(k.tried) < fetchPause {
		return nil
	}
	done := make(chan struct{})
	k.tried, k.done = now, done
	k.work.Go(func() {
		ctx, cancel := context.WithTimeout(k.ctx, fetchTimeout)
		defer cancel()
		keys, err := k.fetch(ctx)
		if k.ctx.Err() == nil { // it is no fault of the issuer that we end
			k.log(err)
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.failed = err; err == nil {
			k.keys, k.fetched = keys, k.clock()
		}
		k.done = nil
		close(done)
	})
	return done
}

// away is the answer where there are no keys that count.
func (k *keySet) away() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed == nil {
		return fmt.Errorf("%w: the keys of its issuer are not here yet", access.ErrUnchecked)
	}
	return fmt.Errorf("%w: the keys of its issuer cannot be had: %w", access.ErrUnchecked, k.failed)
}

// age is how old the keys are; false if there are none.
func (k *keySet) age() (time.Duration, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.clock().Sub(k.fetched), !k.fetched.IsZero()
}

// fetchKeys reads a JWKS. Keys that cannot verify what is taken here are left out.
func fetchKeys(ctx context.Context, client *http.Client, from string) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: status %d", req.URL.Redacted(), answer.StatusCode)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", req.URL.Redacted(), err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return nil, fmt.Errorf("GET %s: %w", req.URL.Redacted(), err)
	}
	return keys, nil
}

func parseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("a JWKS: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, text := range set.Keys {
		var key jose.JSONWebKey
		if err := json.Unmarshal(text, &key); err == nil && usable(&key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("a JWKS without a key for RS256, ES256, ES384 or EdDSA")
	}
	return keys, nil
}

// usable tells whether a key can be one that signs JWTs for us. RSA keys have 2048 to 8192 bits.
func usable(key *jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	if p, ok := key.Key.(*rsa.PublicKey); ok && (p.N.BitLen() < 2048 || p.N.BitLen() > 8192) {
		return false
	}
	return slices.ContainsFunc(algorithms, func(alg string) bool { return signs(key, alg) })
}
