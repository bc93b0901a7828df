package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"narwharf/cmd/narwharf/server"
	"narwharf/hooks"
	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
	"narwharf/hooks/api/login"
	"narwharf/hooks/api/notify"
	"narwharf/hooks/api/plan"
	"narwharf/hooks/api/policy"
	"narwharf/hooks/api/retention"
	"narwharf/hooks/api/rollouts"
	told "narwharf/hooks/notify"
	"narwharf/hooks/reply"
	"narwharf/hooks/rollout"
	rules "narwharf/hooks/rollout/policy"
	"narwharf/hooks/window"
	"narwharf/narinfo"
	"narwharf/signing"
	"narwharf/signing/access"
	"narwharf/signing/access/scope"
)

// apiOpenAPI is docs/openapi.json as the tests of /api/v1 look at it.
type apiOpenAPI struct {
	Paths      map[string]map[string]json.RawMessage
	Components struct {
		Schemas   map[string]apiSchema
		Responses map[string]struct {
			Kinds []api.Kind `json:"x-kinds"`
		}
	}
}

type apiSchema struct {
	Required   []string
	Pattern    string
	Enum       []string
	MaxItems   int
	OneOf      []apiSchema
	Properties map[string]apiSchema
}

type apiCall struct {
	OperationID string   `json:"operationId"`
	Scope       string   `json:"x-scope"`
	Scopes      []string `json:"x-scopes"` // any of them
	Responses   map[string]struct {
		Ref     string `json:"$ref"`
		Content map[string]any
	}
	RequestBody *struct{} `json:"requestBody"`
}

func readAPIDocument(t *testing.T) *apiOpenAPI {
	t.Helper()
	text, err := os.ReadFile("../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	doc := new(apiOpenAPI)
	if err := json.Unmarshal(text, doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// documentPath is a pattern as the document writes it.
func documentPath(pattern string) string {
	return regexp.MustCompile(`:(\w+)`).ReplaceAllString(pattern, "{$1}")
}

// call finds what the document has for a route, nil if nothing.
func (doc *apiOpenAPI) call(t *testing.T, method, pattern string) *apiCall {
	t.Helper()
	raw, ok := doc.Paths[documentPath(pattern)][strings.ToLower(method)]
	if !ok {
		return nil
	}
	c := new(apiCall)
	if err := json.Unmarshal(raw, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// pattern is the grammar of a parameter of a path, "" if it is a number.
func (doc *apiOpenAPI) pattern(t *testing.T, path, name string) string {
	t.Helper()
	var list []struct {
		Name, In string
		Schema   apiSchema
	}
	if err := json.Unmarshal(doc.Paths[path]["parameters"], &list); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, p := range list {
		if p.Name == name && p.In == "path" {
			return p.Schema.Pattern
		}
	}
	t.Fatalf("%s lacks the parameter %s", path, name)
	return ""
}

// The document has the routes of the API and no others, with HEAD beside GET.
func TestOpenAPIHasTheAPI(t *testing.T) {
	doc := readAPIDocument(t)
	want := make(map[string]scope.Needs) // "GET /api/v1/channels"
	for _, r := range hooks.Routes() {
		want[r.Method+" "+documentPath(r.Pattern)] = r.Needs
		if r.Method == http.MethodGet {
			want[http.MethodHead+" "+documentPath(r.Pattern)] = r.Needs
		}
	}
	ids := make(map[string]bool)
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, "/api/") && !strings.HasPrefix(path, reply.FleetLock) {
			continue
		}
		for method := range methods {
			if method == "parameters" {
				for _, m := range regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1) {
					doc.pattern(t, path, m[1])
				}
				continue
			}
			at := strings.ToUpper(method) + " " + path
			if want[at] == nil {
				t.Errorf("docs/openapi.json has %s, which no route answers", at)
			}
			c := doc.call(t, method, path)
			if ids[c.OperationID] || c.OperationID == "" {
				t.Errorf("%s: the operationId %q is not its own", at, c.OperationID)
			}
			ids[c.OperationID] = true
			if c.Scope != "" {
				c.Scopes = append(c.Scopes, c.Scope)
			}
			if needs := want[at]; strings.Join(c.Scopes, ", or ") != needs.String() {
				t.Errorf("%s needs %q in the document, %q in the table", at, c.Scopes, needs)
			}
			delete(want, at)
		}
	}
	for at := range want {
		t.Errorf("docs/openapi.json lacks %s", at)
	}
}

// The document's kinds of errors are those of package api, and each stands at
// the status that the table there says.
func TestOpenAPIHasTheErrorKinds(t *testing.T) {
	doc := readAPIDocument(t)
	var kinds []string
	for _, k := range api.Kinds {
		kinds = append(kinds, string(k.Kind))
		if k.Status == 405 || k.Status == 421 {
			continue // the description of the whole has them
		}
		name := statusResponse(t, doc, strconv.Itoa(k.Status))
		if !slices.Contains(doc.Components.Responses[name].Kinds, k.Kind) {
			t.Errorf("%s lacks the kind %s", name, k.Kind)
		}
	}
	slices.Sort(kinds)
	slices.Sort(doc.Components.Schemas["Error"].Properties["kind"].Enum)
	if listed := doc.Components.Schemas["Error"].Properties["kind"].Enum; !slices.Equal(kinds, listed) || len(kinds) == 0 {
		t.Errorf("the kinds are\n%q\nand in docs/openapi.json\n%q", kinds, listed)
	}
}

// statusResponse is the one response of the API that the document has for a
// status.
func statusResponse(t *testing.T, doc *apiOpenAPI, status string) (name string) {
	t.Helper()
	begins := "/api/"
	if status == "423" {
		begins = reply.FleetLock // alone has it
	}
	for path := range doc.Paths {
		for method := range doc.Paths[path] {
			if method == "parameters" || !strings.HasPrefix(path, begins) {
				continue
			}
			ref := doc.call(t, method, path).Responses[status].Ref
			ref = strings.TrimPrefix(ref, "#/components/responses/")
			if ref == "" {
				continue
			}
			if name != "" && name != ref {
				t.Errorf("%s is %s and %s", status, name, ref)
			}
			name = ref
		}
	}
	return name
}

// The schemas have the fields of the types, and what is always there is
// required.
func TestOpenAPIHasTheTypes(t *testing.T) {
	doc := readAPIDocument(t)
	for name, value := range map[string]any{
		"Error": api.Error{}, "Missing": api.Missing{}, "Difference": api.Difference{}, "Promotion": api.Promotion{}, "Promoted": api.Promoted{},
		"TargetPlan": api.TargetPlan{}, "Channel": api.Channel{}, "HistoryItem": api.HistoryItem{}, "HistoryTarget": api.HistoryTarget{},
		"Desired": api.Desired{}, "Grant": api.Grant{}, "Waiting": api.Waiting{}, "Hold": api.Hold{}, "Directive": api.Directive{}, "Policy": api.Policy{}, "ChannelPolicy": policy.Channel{}, "Window": window.Window{}, "Slot": api.Slot{}, "Keys": api.Keys{}, "KeysChange": api.KeysChange{},
		"Status": api.Status{}, "Check": api.Check{}, "Transition": api.Transition{}, "Host": api.Host{}, "Identity": api.Identity{}, "Claim": api.Claim{}, "Join": api.Join{}, "Joined": api.Joined{}, "Exchanged": login.Token{}, "Event": api.Event{}, "Actor": api.Actor{}, "Login": login.Info{}, "LoginIssuer": login.Issuer{}, "LoginYou": login.You{}, "Session": login.Session{},
		"Pin": retention.Pin{}, "Sum": retention.Sum{}, "GcPlan": retention.Plan{}, "Going": retention.Going{}, "GcStatus": retention.Status{}, "GcRunning": retention.Running{}, "GcResult": retention.Result{},
		"Alarm": alarm.Alarm{}, "AlarmAct": alarm.Act{}, "NotifyTarget": notify.Target{}, "NotifyAttempt": notify.Attempt{},
		"Why": retention.Why{}, "Chain": retention.Chain{}, "Usage": retention.Usage{}, "Share": retention.Share{}, "Deleted": retention.Deleted{},
		"Plan": plan.Plan{}, "PlanRefusal": plan.Refusal{}, "PlanWave": plan.Wave{}, "PlanStep": plan.Step{}, "PlanPackage": plan.Package{}, "PlanHost": plan.Host{},
		"ReleaseDifference": plan.Difference{}, "ReleaseChange": plan.Change{},
		"Rollout": rollout.Summary{}, "RolloutWave": rollout.WaveSummary{}, "RolloutHost": rollout.HostLine{}, "RolloutCheck": rollout.Check{}, "RolloutVerb": rollouts.Verb{},
		"BudgetRule": rollout.Budget{}, "Budget": rollouts.Budget{}, "SelectorHold": rollouts.Hold{}, "Freeze": rollouts.Freeze{}, "Quarantine": rollout.Quarantine{}, "ChannelPolicySet": policy.Set{},
		"RolloutPolicy": rules.Rollout{}, "RolloutPolicyWave": rules.Wave{}, "RolloutPolicyAfter": rules.After{}, "RolloutPolicyRollback": rules.Rollback{}, "RolloutPolicyRequires": rules.Requires{},
		"Envelope": signing.Envelope{}, "Signature": signing.Signature{}, "Release": signing.Release{}, "Pointer": signing.Pointer{},
	} {
		schema, ok := doc.Components.Schemas[name]
		if !ok {
			t.Errorf("docs/openapi.json lacks the schema %s", name)
			continue
		}
		all, required := jsonFields(reflect.TypeOf(value))
		var listed []string
		for property := range schema.Properties {
			listed = append(listed, property)
		}
		for _, l := range [][]string{all, required, listed, schema.Required} {
			slices.Sort(l)
		}
		if !slices.Equal(all, listed) || !slices.Equal(required, schema.Required) {
			t.Errorf("%s has the fields\n%q, of these always\n%q\nand in docs/openapi.json\n%q\n%q", name, all, required, listed, schema.Required)
		}
	}
	var states []string
	for _, s := range api.States {
		states = append(states, string(s))
	}
	if got := doc.Components.Schemas["Status"].Properties["state"].Enum; !slices.Equal(got, states) {
		t.Errorf("the states are\n%q\nand in docs/openapi.json\n%q", states, got)
	}
}

func jsonFields(of reflect.Type) (all, required []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		if f.Anonymous {
			a, r := jsonFields(f.Type)
			all, required = append(all, a...), append(required, r...)
			continue
		}
		name, rest, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		all = append(all, name)
		if rest == "" {
			required = append(required, name)
		}
	}
	return all, required
}

// apiServer is a real server with channels, on the folder of answers.
type apiServer struct {
	*answers
	doc      *apiOpenAPI
	url      string
	registry *prometheus.Registry
	admin    string // a token
	key      signing.SecretKey
	path     *narinfo.Info // in the cache
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{answers: newAnswers(t), doc: readAPIDocument(t), registry: prometheus.NewRegistry()}
	auth := access.NewAuthenticator(access.Options{Tokens: s.dir.Tokens, Anonymous: scope.Set{{Kind: scope.Pull}}})
	s.dir.Config.Metrics.Hosts = true
	s.dir.Notified = []told.Target{{Name: "ops", URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, Alarms: true, Private: true}} // nobody is there
	channels, err := s.dir.OpenChannels(s.cache, auth, nil, s.registry)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(server.Web(nil, http.NotFoundHandler(), channels, http.NotFoundHandler()))
	t.Cleanup(srv.Close)
	t.Cleanup(channels.Stop)
	s.url, s.admin = srv.URL, s.token("admin")
	if s.key, err = signing.GenerateKey("promoter-1"); err != nil {
		t.Fatal(err)
	}
	var file []byte
	if s.path, file, err = samplePath("sample", "a file"); err != nil {
		t.Fatal(err)
	}
	s.want(201, ask{route: "nar", method: "PUT", path: "/" + s.path.URL, body: string(file), headers: bearer(s.push)})
	s.want(201, ask{route: "narinfo", method: "PUT", path: "/" + s.path.Path.Hash() + ".narinfo", body: string(s.path.Append(nil)), headers: bearer(s.push)})
	return s
}

// grant makes a token whose scope cannot be its name.
func (s *apiServer) grant(name, word string) string {
	s.t.Helper()
	scopes, err := scope.ParseSet([]string{word})
	if err != nil {
		s.t.Fatal(err)
	}
	secret, token, err := access.New(name, "", scopes, time.Now(), time.Time{})
	if err == nil {
		err = s.dir.Tokens.Add(s.t.Context(), token)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return secret
}

// manifest is the closure manifest of the path that is in the cache.
func (s *apiServer) manifest() *signing.Manifest {
	s.t.Helper()
	m, err := signing.NewManifest([]*narinfo.Info{s.path})
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// promotion is the body of a promote of the path for everyone.
func (s *apiServer) promotion(seq int64, change func(*signing.Head, *api.Promotion, *signing.Entry)) string {
	s.t.Helper()
	e := signing.Entry{Target: signing.Everyone, StorePath: s.path.Path.In(s.path.StoreDir), Closure: s.manifest().Digest(), System: "x86_64-linux", Action: signing.Auto}
	order := seq * 10
	h := signing.Head{Origin: "cache.example.org/web", Channel: "web", Seq: seq, Order: &order, Created: time.Unix(seq, 0).UTC()}
	p := &api.Promotion{Kind: api.KindPath, Keys: []string{s.key.Public().String()}, Threshold: 1}
	if change != nil {
		change(&h, p, &e)
	}
	r, err := signing.NewRelease(h, []signing.Entry{e}, s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	p.Release = *r
	text, err := json.Marshal(p)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// wantAPI asks a route and holds the answer against the document.
func (s *apiServer) wantAPI(status int, method, pattern, path, body, token string, headers ...string) http.Header {
	s.t.Helper()
	req, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	at := fmt.Sprintf("%s %s %d", method, path, resp.StatusCode)
	if resp.StatusCode != status {
		s.t.Errorf("%s, want %d: %s", at, status, text)
	}
	c := s.doc.call(s.t, method, pattern)
	if c == nil {
		s.t.Fatalf("docs/openapi.json lacks %s %s", method, pattern)
	}
	documented, ok := c.Responses[strconv.Itoa(resp.StatusCode)]
	if !ok {
		s.t.Errorf("%s is not in docs/openapi.json: %s", at, text)
		return resp.Header
	}
	switch {
	case resp.StatusCode < 400:
		if _, ok := documented.Content[resp.Header.Get("Content-Type")]; len(text) > 0 && !ok {
			s.t.Errorf("%s has the Content-Type %q, the document %v", at, resp.Header.Get("Content-Type"), documented.Content)
		}
	case method != http.MethodHead:
		var e struct {
			api.Error
			Value string `json:"value"` // with FleetLock in place of the message
		}
		if err := json.Unmarshal(text, &e); err != nil || (e.Message == "") != strings.HasPrefix(path, reply.FleetLock) || e.Message+e.Value == "" || resp.Header.Get("Content-Type") != "application/json" {
			s.t.Errorf("%s: not an error of the API: %s", at, text)
		}
		name := strings.TrimPrefix(documented.Ref, "#/components/responses/")
		if !slices.Contains(s.doc.Components.Responses[name].Kinds, e.Kind) {
			s.t.Errorf("%s is of the kind %s, which %s lacks", at, e.Kind, name)
		}
	}
	return resp.Header
}

const (
	apiChannel = "/api/v1/channels/:channel"
	apiHost    = "/api/v1/hosts/:host"
)

// A body of {} is refused by every route that takes a body, whoever sends it.
func TestAPIRefusesEmptyObjects(t *testing.T) {
	s := newAPIServer(t)
	path := strings.NewReplacer(":channel", "web", ":host", "web-1", ":digest", strings.Repeat("ab", 32), ":pin", "one", ":name", "one", ":alarm", "1", ":target", "ops", ":check", "smoke")
	for _, r := range hooks.Routes() {
		if r.Method == http.MethodGet || r.Method == http.MethodDelete {
			continue
		}
		if s.doc.call(t, r.Method, r.Pattern).RequestBody == nil && r.Name != "gc-post" && r.Name != "check" { // which take none
			t.Errorf("docs/openapi.json: %s %s has no body", r.Method, r.Pattern)
		}
		at := path.Replace(r.Pattern)
		s.wantAPI(400, r.Method, r.Pattern, at, "{}", s.admin)
		none, other := 401, 403
		if r.Needs[0].Public {
			none, other = 400, 400
		}
		s.wantAPI(none, r.Method, r.Pattern, at, "{}", "")
		s.wantAPI(other, r.Method, r.Pattern, at, "{}", s.pull)
	}
}

// What a server answers from the first promote on is in the document.
func TestAPIAnswersAreDocumented(t *testing.T) {
	s := newAPIServer(t)
	s.exercise()
}

// exercise takes a channel and a host through their lives.
func (s *apiServer) exercise() {
	const web, list = "/api/v1/channels/web", "/api/v1/channels"
	put := func(status int, body, token string, headers ...string) {
		s.t.Helper()
		s.wantAPI(status, "PUT", apiChannel, web, body, token, headers...)
	}
	// An ETag of 404 is what the first promote needs.
	if etag := s.wantAPI(404, "GET", apiChannel, web, "", "").Get("Etag"); etag != `"0"` {
		s.t.Errorf("the ETag of what is not there is %s", etag)
	}
	s.wantAPI(200, "GET", list, list, "", "")
	s.wantAPI(404, "GET", apiChannel+"/history", web+"/history", "", "")
	first := s.promotion(1, nil)
	put(401, first, "")
	put(403, first, s.push)
	put(428, first, s.admin)
	put(412, first, s.admin, `If-Match: "7"`)
	put(409, s.promotion(2000, nil), s.admin, `If-Match: "0"`)
	put(422, s.promotion(1, func(_ *signing.Head, p *api.Promotion, _ *signing.Entry) { p.Threshold = 2 }), s.admin, `If-Match: "0"`)
	put(422, s.promotion(1, func(_ *signing.Head, p *api.Promotion, _ *signing.Entry) { p.Kind = api.KindNixOS }), s.admin, `If-Match: "0"`)
	put(422, s.promotion(1, func(_ *signing.Head, _ *api.Promotion, e *signing.Entry) {
		e.StorePath = "/nix/store/" + sampleHash("gone") + "-gone"
	}), s.admin, `If-Match: "0"`)
	put(422, s.promotion(1, func(_ *signing.Head, _ *api.Promotion, e *signing.Entry) { e.Closure[0]++ }), s.admin, `If-Match: "0"`)
	s.wantAPI(200, "PUT", apiChannel, web+"?dry_run=1", first, s.admin, `If-Match: "0"`)
	put(200, first, s.admin, `If-Match: "0"`)
	put(200, first, s.admin) // already
	put(200, s.promotion(2, nil), s.admin, `If-Match: "1"`)
	put(409, s.promotion(3, func(h *signing.Head, _ *api.Promotion, _ *signing.Entry) { *h.Order = 5 }), s.admin, `If-Match: "2"`)

	manifest := "/api/v1/closures/" + s.manifest().Digest().Hex()
	const closures = "/api/v1/closures/:digest"
	s.wantAPI(201, "PUT", closures, manifest, string(s.manifest().Text()), s.admin)
	s.wantAPI(422, "PUT", closures, manifest, "no manifest", s.admin)
	s.wantAPI(404, "GET", closures, "/api/v1/closures/"+strings.Repeat("ab", 32), "", "")
	for _, method := range []string{"GET", "HEAD"} {
		s.wantAPI(200, method, list, list, "", "")
		s.wantAPI(200, method, apiChannel, web, "", "")
		s.wantAPI(304, method, apiChannel, web, "", "", `If-None-Match: "2"`)
		s.wantAPI(200, method, apiChannel+"/history", web+"/history", "", "")
		s.wantAPI(200, method, apiChannel+"/plan", web+"/plan", "", s.operate)
		s.wantAPI(400, method, apiChannel+"/plan", web+"/plan?to=x", "", s.operate)
		s.wantAPI(404, method, apiChannel+"/plan", web+"/plan?to=9", "", s.operate)
		s.wantAPI(422, method, apiChannel+"/plan", web+"/plan?to=/nix/store/"+sampleHash("gone")+"-gone", "", s.operate)
		s.wantAPI(200, method, apiChannel+"/releases/:seq", web+"/releases/1", "", "")
		s.wantAPI(404, method, apiChannel+"/releases/:seq", web+"/releases/9", "", "")
		s.wantAPI(200, method, apiChannel+"/releases/:seq/difference", web+"/releases/2/difference", "", s.operate)
		s.wantAPI(404, method, apiChannel+"/releases/:seq/difference", web+"/releases/2/difference?from=9", "", s.operate)
		s.wantAPI(400, method, apiChannel+"/releases/:seq/difference", web+"/releases/2/difference?from=x", "", s.operate)
		s.wantAPI(200, method, apiChannel+"/store-path", web+"/store-path", "", "")
		s.wantAPI(304, method, apiChannel+"/store-path", web+"/store-path", "", "", `If-None-Match: "2"`)
		s.wantAPI(404, method, apiChannel+"/store-path", "/api/v1/channels/none/store-path", "", "")
		s.wantAPI(200, method, closures, manifest, "", "")
		s.wantAPI(304, method, closures, manifest, "", "", "If-None-Match: *")
	}
	s.wantAPI(304, "GET", apiChannel, web, "", "", `If-None-Match: "2"`, "Prefer: wait=1")
	s.exerciseHost()
	s.wantAPI(428, "DELETE", apiChannel, web, "", s.admin)
	s.wantAPI(204, "DELETE", apiChannel, web, "", s.admin, `If-Match: "2"`)
	s.wantAPI(404, "DELETE", apiChannel, web, "", s.admin, `If-Match: "2"`)
	put(200, s.promotion(3, nil), s.admin, `If-Match: "2"`)
}

// status is the report of a host that runs a release.
func (s *apiServer) status(seq int64, change func(*api.Status)) string {
	s.t.Helper()
	path := s.path.Path.In(s.path.StoreDir)
	st := &api.Status{StartID: 1, Counter: seq, Channel: "web", Target: "web-1", BootID: "b", State: api.OK, Seq: seq,
		Wanted: path, Current: path, Booted: path, Profile: path, HighestSeq: seq}
	if change != nil {
		change(st)
	}
	text, err := json.Marshal(st)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// report says that a host runs a release.
func (s *apiServer) report(seq int64) {
	s.t.Helper()
	s.wantAPI(204, "PUT", apiHost+"/status", "/api/v1/hosts/web-1/status", s.status(seq, nil), s.admin)
}

func (s *apiServer) exerciseHost() {
	const host, query = "/api/v1/hosts/web-1", "?channel=web"
	follow, promote := s.grant("follower", "follow:web"), s.grant("promoter", "promote:web")
	s.wantAPI(404, "GET", apiHost, host, "", s.admin)
	s.wantAPI(404, "GET", apiHost+"/log", host+"/log", "", s.admin)
	s.wantAPI(401, "GET", apiHost+"/desired", host+"/desired"+query, "", "")
	s.wantAPI(403, "GET", apiHost+"/desired", host+"/desired?channel=db", "", follow)
	etag := s.wantAPI(200, "GET", apiHost+"/desired", host+"/desired"+query, "", follow).Get("Etag")
	s.wantAPI(304, "GET", apiHost+"/desired", host+"/desired"+query, "", follow, "If-None-Match: "+etag)
	status := func(change func(*api.Status)) string { return s.status(2, change) }
	s.wantAPI(401, "PUT", apiHost+"/status", host+"/status", status(nil), "")
	s.wantAPI(400, "PUT", apiHost+"/status", host+"/status", status(func(st *api.Status) { st.Current = "/nix/store/other" }), follow)
	s.wantAPI(413, "PUT", apiHost+"/status", host+"/status", strings.Repeat(" ", 65<<20)+status(nil), follow)
	s.wantAPI(204, "PUT", apiHost+"/status", host+"/status", status(nil), follow)
	s.wantAPI(409, "PUT", apiHost+"/status", host+"/status", status(func(st *api.Status) { st.Error = "another" }), follow)
	s.wantAPI(204, "POST", apiHost+"/log", host+"/log?attempt=a1", "a line\n", follow)
	s.wantAPI(200, "PATCH", apiHost, host, `{"hold":{"reason":"a test"}}`, s.operate)
	s.wantAPI(413, "PATCH", apiHost, host, `{"labels":{"a":"`+strings.Repeat("x", 1<<17)+`"}}`, s.operate)
	s.wantAPI(404, "PATCH", apiHost, "/api/v1/hosts/none", `{"unhold":true}`, s.operate)
	for _, method := range []string{"GET", "HEAD"} {
		s.wantAPI(200, method, apiHost, host, "", s.operate)
		s.wantAPI(200, method, apiHost+"/log", host+"/log", "", s.operate)
		s.wantAPI(200, method, apiHost+"/desired", host+"/desired"+query, "", follow)
		for _, list := range []string{"/api/v1/hosts", "/api/v1/events"} {
			s.wantAPI(200, method, list, list, "", s.operate)
			s.wantAPI(401, method, list, list, "", "")
			s.wantAPI(403, method, list, list, "", follow)
		}
		s.wantAPI(304, method, "/api/v1/events", "/api/v1/events?since=1000", "", s.operate, `If-None-Match: "1000"`)
		s.wantAPI(200, method, "/api/v1/hosts", "/api/v1/hosts"+query, "", promote)
	}
	s.wantAPI(404, "DELETE", apiHost, "/api/v1/hosts/none", "", s.operate)
	s.exerciseTelling(follow)
}
