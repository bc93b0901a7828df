package oidctest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// code is a login by code that was begun.
type code struct {
	client, redirect, challenge, nonce string
	person                             map[string]any
}

// device is a login by device that was begun.
type device struct {
	client, user string
	person       map[string]any // nil before it is approved
	denied       bool
	asked        time.Time
}

// devicePause is how often a device may ask, in seconds.
const devicePause = 1

// Person sets who logs in by code, with the claims of the ID token. nil: who logs in is refused.
func (is *Issuer) Person(claims map[string]any) {
	is.mu.Lock()
	defer is.mu.Unlock()
	is.person = claims
}

// Approve logs a person in who has typed a device's code: the claims of the ID token, nil to refuse.
// It tells whether there is such a code.
func (is *Issuer) Approve(userCode string, claims map[string]any) bool {
	is.mu.Lock()
	defer is.mu.Unlock()
	for _, d := range is.devices {
		if d.user == userCode {
			d.person, d.denied = claims, claims == nil
			return true
		}
	}
	return false
}

// Codes are the codes of devices that wait.
func (is *Issuer) Codes() (list []string) {
	is.mu.Lock()
	defer is.mu.Unlock()
	for _, d := range is.devices {
		if d.person == nil && !d.denied {
			list = append(list, d.user)
		}
	}
	return list
}

func (is *Issuer) routes(path string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path+"/.well-known/openid-configuration", is.discovery)
	mux.HandleFunc("GET "+path+"/jwks", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(is.JWKS())
	})
	mux.HandleFunc("GET "+path+"/authorize", is.authorize)
	mux.HandleFunc("POST "+path+"/device", is.startDevice)
	mux.HandleFunc("POST "+path+"/token", is.token)
	return mux
}

func (is *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer": is.URL, "jwks_uri": is.URL + "/jwks", "authorization_endpoint": is.URL + "/authorize", "token_endpoint": is.URL + "/token",
		"device_authorization_endpoint": is.URL + "/device", "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{RS256, ES256, ES384, EdDSA}, "code_challenge_methods_supported": []string{"S256"},
	})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, text string) {
	writeJSON(w, http.StatusBadRequest, map[string]string{"error": text})
}

// authorize logs the person in and sends the browser back.
func (is *Issuer) authorize(w http.ResponseWriter, req *http.Request) {
	q := req.URL.Query()
	c, ok := is.clients[q.Get("client_id")]
	back, err := url.Parse(q.Get("redirect_uri"))
	if !ok || err != nil || !slices.Contains(c.Redirects, q.Get("redirect_uri")) {
		fail(w, "unknown client or redirect_uri")
		return
	}
	answer := back.Query()
	answer.Set("state", q.Get("state"))
	is.mu.Lock()
	person := is.person
	switch {
	case q.Get("response_type") != "code" || !slices.Contains(strings.Fields(q.Get("scope")), "openid"):
		answer.Set("error", "invalid_request")
	case q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "":
		answer.Set("error", "invalid_request")
	case person == nil:
		answer.Set("error", "access_denied")
	default:
		secret := rand.Text()
		is.codes[secret] = &code{c.ID, q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce"), person}
		answer.Set("code", secret)
	}
	is.mu.Unlock()
	back.RawQuery = answer.Encode()
	http.Redirect(w, req, back.String(), http.StatusFound)
}

func (is *Issuer) startDevice(w http.ResponseWriter, req *http.Request) {
	c, ok := is.clients[req.FormValue("client_id")]
	if !ok || !slices.Contains(strings.Fields(req.FormValue("scope")), "openid") {
		fail(w, "invalid_client")
		return
	}
	secret, user := rand.Text(), rand.Text()[:4]+"-"+rand.Text()[:4]
	is.mu.Lock()
	is.devices[secret] = &device{client: c.ID, user: user}
	is.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"device_code": secret, "user_code": user, "verification_uri": is.URL + "/activate",
		"verification_uri_complete": is.URL + "/activate?user_code=" + user, "expires_in": 600, "interval": devicePause,
	})
}

// token answers the questions of clients.
func (is *Issuer) token(w http.ResponseWriter, req *http.Request) {
	id, secret, basic := req.BasicAuth()
	if !basic {
		id, secret = req.PostFormValue("client_id"), req.PostFormValue("client_secret")
	}
	c, ok := is.clients[id]
	if !ok || c.Secret != secret {
		fail(w, "invalid_client")
		return
	}
	switch req.PostFormValue("grant_type") {
	case "authorization_code":
		is.ofCode(w, req, id)
	case "urn:ietf:params:oauth:grant-type:device_code":
		is.ofDevice(w, req, id)
	default:
		fail(w, "unsupported_grant_type")
	}
}

func (is *Issuer) ofCode(w http.ResponseWriter, req *http.Request, client string) {
	is.mu.Lock()
	c := is.codes[req.PostFormValue("code")]
	delete(is.codes, req.PostFormValue("code"))
	is.mu.Unlock()
	sum := sha256.Sum256([]byte(req.PostFormValue("code_verifier")))
	if c == nil || c.client != client || c.redirect != req.PostFormValue("redirect_uri") || c.challenge != base64.RawURLEncoding.EncodeToString(sum[:]) {
		fail(w, "invalid_grant")
		return
	}
	is.loggedIn(w, client, c.nonce, c.person)
}

func (is *Issuer) ofDevice(w http.ResponseWriter, req *http.Request, client string) {
	secret := req.PostFormValue("device_code")
	is.mu.Lock()
	d := is.devices[secret]
	early := d != nil && time.Since(d.asked) < devicePause*time.Second*9/10
	var person map[string]any
	if d != nil {
		d.asked, person = time.Now(), d.person
		if person != nil || d.denied {
			delete(is.devices, secret)
		}
	}
	is.mu.Unlock()
	switch {
	case d == nil || d.client != client:
		fail(w, "expired_token")
	case d.denied:
		fail(w, "access_denied")
	case early:
		fail(w, "slow_down")
	case person == nil:
		fail(w, "authorization_pending")
	default:
		is.loggedIn(w, client, "", person)
	}
}

// loggedIn answers with an ID token.
func (is *Issuer) loggedIn(w http.ResponseWriter, client, nonce string, person map[string]any) {
	claims := map[string]any{"aud": client, "azp": client}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	maps.Copy(claims, person)
	writeJSON(w, http.StatusOK, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 300, "id_token": is.Token(claims)})
}
