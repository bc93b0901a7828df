package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/signing"
	"narwharf/signing/keyring"
)

// What a server answers about a channel's keys is in the document.
func TestKeysAnswersAreDocumented(t *testing.T) {
	s := newAPIServer(t)
	const route, path = apiChannel + "/keys", "/api/v1/channels/web/keys"
	s.wantAPI(404, "GET", route, path, "", "")
	s.wantAPI(200, "PUT", apiChannel, "/api/v1/channels/web", s.promotion(1, nil), s.admin, `If-Match: "0"`)
	var list []*signing.Envelope
	b := keyring.Base{Origin: "cache.example.org/web", Channel: "web", Keys: []signing.PublicKey{s.key.Public()}, Threshold: 1}
	statement := func(version int) string {
		k := keyring.Walk(b, list, nil).Next(b, b.Keys, 1)
		k.Created, k.Threshold = time.Now(), version
		e, err := k.Seal()
		if err != nil {
			t.Fatal(err)
		}
		e.Sign(keyring.KeysKind, s.key)
		list = append(list, e)
		text, err := json.Marshal(api.KeysChange{Statement: e})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first, second := statement(1), statement(1)
	for _, method := range []string{"GET", "HEAD"} {
		s.wantAPI(200, method, route, path, "", "")
	}
	s.wantAPI(401, "PUT", route, path, first, "")
	s.wantAPI(403, "PUT", route, path, first, s.push)
	s.wantAPI(400, "PUT", route, path, `{}`, s.admin)
	s.wantAPI(413, "PUT", route, path, `{"recovery":["`+strings.Repeat("x", 1<<20)+`"]}`, s.admin)
	s.wantAPI(409, "PUT", route, path, second, s.admin)
	s.wantAPI(422, "PUT", route, path, `{"recovery":["x"]}`, s.admin)
	s.wantAPI(200, "PUT", route, path, first, s.admin)
	s.wantAPI(200, "PUT", route, path, second, s.admin)
	s.wantAPI(200, "GET", route, path, "", "")
	s.wantAPI(200, "GET", apiHost+"/desired", "/api/v1/hosts/web-1/desired?channel=web&keys=1", "", s.admin)
}
