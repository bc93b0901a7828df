package hooks

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"narwharf/cache/limits"
	"narwharf/cache/state"
	"narwharf/hooks/api"
	"narwharf/hooks/intake"
	"narwharf/signing"
)

// say opens a connection, writes what is given, and returns what comes back.
func (w *world) dial(text string) net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.http.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// TestRightsBeforeBodies: who may not is told so before a byte of the body, and what is
// left of the body holds nothing for long.
func TestRightsBeforeBodies(t *testing.T) {
	w := newWorld(t)
	for _, r := range (&Server{}).rows() {
		if r.Method == "GET" || r.Method == "DELETE" || r.Needs[0].Public { // whose credential is in the body
			continue
		}
		path := strings.NewReplacer(":channel", "web", ":host", "web-1", ":digest", strings.Repeat("0", 64)).Replace(r.Pattern)
		for token, want := range map[string]int{"": 401, w.token("none-"+r.Name, "pull"): 403} {
			t.Run(fmt.Sprint(r.Name, want), func(t *testing.T) {
				t.Parallel()
				c := w.dial(fmt.Sprintf("%s %s?attempt=a&channel=web HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n%s\r\n{",
					r.Method, path, map[bool]string{true: "Authorization: Bearer " + token + "\r\n"}[token != ""]))
				_ = c.SetDeadline(time.Now().Add(8 * time.Second))
				in := bufio.NewReader(c)
				resp, err := http.ReadResponse(in, nil)
				if err != nil || resp.StatusCode != want {
					t.Fatalf("answer %+v, %v; want %d", resp, err, want)
				}
				defer resp.Body.Close()
				_, _ = io.Copy(io.Discard, resp.Body)
				if _, err := in.ReadByte(); err == nil {
					t.Error("the connection stays open, with a body that nobody reads")
				} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
					t.Errorf("the connection is held: %v", err)
				}
			})
		}
	}
}

// TestSlowBody: a body that comes to a halt ends, and an agent sends its report again.
func TestSlowBody(t *testing.T) {
	w := newWorld(t)
	w.s.shared.BodyIdle = 200 * time.Millisecond
	c := w.dial("PUT /api/v1/hosts/web-1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.host + "\r\nContent-Length: 1000\r\n\r\n{")
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("%+v, %v", resp, err)
	}
	resp.Body.Close()
}

// texts are pointers to the fields of a status in which a host can say what it likes.
func texts(v reflect.Value, name string, all map[string]reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		all[name] = v
	case reflect.Pointer:
		if v.Type().Elem().Kind() == reflect.Struct && v.Type().Elem().Name() != "Pointer" && v.Type().Elem().Name() != "Time" {
			v.Set(reflect.New(v.Type().Elem()))
			texts(v.Elem(), name, all)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		texts(v.Index(0), name+"[]", all)
	case reflect.Struct:
		for i := range v.NumField() {
			texts(v.Field(i), name+"."+v.Type().Field(i).Name, all)
		}
	}
}

// TestFieldsOfAStatus: colours and a mebibyte in any field lose nothing of the rest, and
// come out clean and short.
func TestFieldsOfAStatus(t *testing.T) {
	w := newWorld(t)
	nasty := "\x1b[31mred\x1b[0m\r\n\a\u009b2J\u202egnp " + strings.Repeat("é", 1<<19)
	names := make(map[string]reflect.Value)
	texts(reflect.ValueOf(new(api.Status)).Elem(), "", names)
	counter := int64(0)
	for name := range names {
		switch name {
		case ".Channel", ".Target", ".State", ".Instance": // who and what it is: these are checked
			continue
		}
		counter++
		st := new(api.Status)
		all := make(map[string]reflect.Value)
		texts(reflect.ValueOf(st).Elem(), "", all)
		for _, field := range all {
			field.SetString("x")
		}
		*st = *status(counter, api.Reverted, func(s *api.Status) {
			s.Checks, s.Transitions, s.NewFailedUnits, s.NeedRebootFor, s.Differs, s.WaitingFor, s.Pause, s.Directives = st.Checks, st.Transitions, st.NewFailedUnits, st.NeedRebootFor, st.Differs, st.WaitingFor, st.Pause, st.Directives
		})
		again := reflect.ValueOf(st).Elem()
		set(again, strings.Split(strings.TrimPrefix(name, "."), "."), nasty)
		if a := w.report(st); a.status != 204 {
			t.Errorf("%s: %s", name, a)
			continue
		}
		a := w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 200, "")
		h := decode[api.Host](t, a)
		if h.Status.State != api.Reverted || h.Status.Counter != counter {
			t.Errorf("%s: the report did not arrive: %+v", name, h.Status)
		}
		if len(a.body) > 16<<10 || !strings.Contains(a.body, "…") || !strings.Contains(a.body, "\uFFFD[31mred\uFFFD[0m") {
			t.Errorf("%s: %d bytes, %.300s", name, len(a.body), a.body)
		}
		if strings.ContainsFunc(strings.TrimSpace(a.body), func(r rune) bool { return unicode.IsControl(r) || r == '\u202e' }) || strings.Contains(a.body, `\u001b`) {
			t.Errorf("%s: not clean: %q", name, a.body)
		}
	}
	if counter < 20 {
		t.Errorf("%d fields only", counter)
	}
	for _, e := range w.events("host.state") {
		if text, _ := json.Marshal(e); len(text) > 8<<10 {
			t.Errorf("an event of %d bytes", len(text))
		}
	}
}

func set(v reflect.Value, path []string, text string) {
	for _, name := range path {
		name, list := strings.CutSuffix(name, "[]")
		v = v.FieldByName(name)
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		if list {
			v = v.Index(0)
		}
	}
	v.SetString(text)
}

// TestStatusOfManyParts: lists and names without end, too, and a head that is none.
func TestStatusOfManyParts(t *testing.T) {
	w := newWorld(t)
	var many strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&many, `,{"name":"check-%d","detail":"%s"}`, i, strings.Repeat("d", 100))
	}
	text, err := json.Marshal(status(1, api.Reverted))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.TrimSuffix(string(text), "}") + `,"checks":[` + many.String()[1:] + `],"head":{"head":"` + strings.Repeat("h", 1<<20) + `"},"` + strings.Repeat("k", 1<<20) + `":[[[{}]]]}`
	w.must(w.do("PUT", "/api/v1/hosts/web-1/status", w.host, []byte(body)), 204, "")
	if h := w.show("web-1"); h.Status.State != api.Reverted || len(h.Status.Checks) != 100 || h.Status.Head != nil {
		t.Errorf("%d checks, %+v", len(h.Status.Checks), h.Status.State)
	}
	for _, bad := range []string{"", "{", `{"state":"ok`, `{"a":1,}`, `{"a" 1}`, `[1 2]`, `{"a":"\u12"}`, `nonsense`, strings.Repeat("[", 1000)} {
		w.must(w.do("PUT", "/api/v1/hosts/web-1/status", w.host, []byte(bad)), 400, api.BadRequest)
	}
}

// TestReportTakesLittleMemory: a report is copied without what is too long.
func TestReportTakesLittleMemory(t *testing.T) {
	in := io.MultiReader(strings.NewReader(`{"channel":"web","error":"`), &endless{left: 32 << 20}, strings.NewReader(`","state":"ok"}`))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	st, err := intake.Status(in, func(string) error { return nil })
	runtime.ReadMemStats(&after)
	if err != nil || st.State != api.OK || len(st.Error) > 4<<10 {
		t.Fatalf("%v, %v", st, err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated for 32 MiB", n)
	}
}

type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	n := min(len(p), e.left)
	for i := range n {
		p[i] = 'e'
	}
	if e.left -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// TestHostsPerCredential: to ask makes no host, and a token that is not of one host makes
// so many and no more; those that are there go on.
func TestHostsPerCredential(t *testing.T) {
	w := newWorld(t)
	w.perCredential = 3
	w.restart()
	report := func(i, counter int, token string) answer {
		name := fmt.Sprintf("web-%d", i)
		return w.do("PUT", "/api/v1/hosts/"+name+"/status", token, status(int64(counter), api.Idle, func(s *api.Status) { s.Target = name }))
	}
	for i := range 20 {
		w.must(w.do("GET", fmt.Sprintf("/api/v1/hosts/web-%d/desired?channel=web", i), w.host, nil), 200, "")
	}
	for i := range 20 {
		w.must(w.do("POST", fmt.Sprintf("/api/v1/hosts/web-%d/log?channel=web&attempt=a", i), w.host, []byte("x")), 404, api.NotFound)
	}
	list := func() int {
		return len(decode[struct{ Hosts []api.Host }](t, w.must(w.do("GET", "/api/v1/hosts", w.op, nil), 200, "")).Hosts)
	}
	if n := list(); n != 0 {
		t.Errorf("%d hosts by asking", n)
	}
	for i := range 3 {
		w.must(report(i, 1, w.host), 204, "")
	}
	w.must(report(3, 1, w.host), 403, api.Forbidden, "limits.hosts_per_credential")
	w.restart()
	w.must(report(4, 1, w.host), 403, api.Forbidden)
	w.must(report(1, 2, w.host), 204, "")
	w.must(report(3, 1, w.admin), 204, "") // another token
	if n := list(); n != 4 {
		t.Errorf("%d hosts", n)
	}
	w.must(w.do("DELETE", "/api/v1/hosts/web-0", w.op, nil), 204, "")
	w.must(report(4, 1, w.host), 204, "")
	w.must(report(5, 1, w.host), 403, api.Forbidden)
}

// TestEventsByBytes: the log comes in pieces, also what an older server let grow.
func TestEventsByBytes(t *testing.T) {
	w := newWorld(t)
	for i := range 12 {
		w.must(w.report(status(int64(i+1), api.States[i%2], func(s *api.Status) { s.Error = strings.Repeat("e", 4<<10) })), 204, "")
	}
	w.oldEvents(t, 20, 1<<20)
	seen, next := 0, int64(1)
	for range 100 {
		a := w.must(w.do("GET", fmt.Sprint("/api/v1/events?since=", next), w.op, nil), 200, "")
		page := decode[struct {
			Events []api.Event
			Next   int64
		}](t, a)
		if len(a.body) > 2<<20 {
			t.Errorf("an answer of %d bytes", len(a.body))
		}
		if seen += len(page.Events); page.Next == next {
			break
		}
		next = page.Next
	}
	if seen < 32 {
		t.Errorf("%d events", seen)
	}
}

// oldEvents are as a server before this one wrote them.
func (w *world) oldEvents(t *testing.T, n, size int) {
	t.Helper()
	err := w.db.Update(t.Context(), nil, func(tx state.Tx) error {
		for range n {
			err := tx.Append("hooks/event", func(p uint64) ([]byte, error) {
				return json.Marshal(api.Event{ID: int64(p), Kind: "host.state", Host: "web-1", Channel: "web", Text: strings.Repeat("t", size)})
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHistoryIsStored: what history says of a release is not read from its file again, and
// comes in pieces.
func TestHistoryIsStored(t *testing.T) {
	w := newWorld(t)
	a := w.system("a")
	entries := make([]signing.Entry, 3000)
	for i := range entries {
		entries[i] = w.entry(fmt.Sprintf("host-%04d", i), a)
	}
	const releases = 8
	for seq := range int64(releases) {
		w.promote(seq+1, entries...)
	}
	type page struct {
		History []api.HistoryItem
		Next    int64
	}
	all := func() (items []api.HistoryItem) {
		t.Helper()
		w.s.shared.Work = limits.NewWork() // on a busy machine it takes long
		for below := ""; ; {
			answer := w.must(w.do("GET", "/api/v1/channels/web/history?limit=1000"+below, "", nil), 200, "")
			p := decode[page](t, answer)
			if len(p.History) > 2 && len(answer.body) > 2<<20 {
				t.Errorf("%d releases in %d bytes", len(p.History), len(answer.body))
			}
			if items = append(items, p.History...); p.Next == 0 {
				return items
			}
			below = fmt.Sprint("&below=", p.Next)
		}
	}
	before := all()
	if len(before) != releases || before[0].Seq != releases || len(before[3].Targets) != len(entries) || before[0].By != "ci" {
		t.Fatalf("%d releases", len(before))
	}
	for i, item := range before {
		if item.Seq != int64(releases-i) {
			t.Errorf("item %d is %d", i, item.Seq)
		}
	}
	// Of an older server there are none; the first who asks has them made.
	if err := w.db.Update(t.Context(), nil, func(tx state.Tx) error { return tx.Clear("hooks/summary") }); err != nil {
		t.Fatal(err)
	}
	if again := all(); !reflect.DeepEqual(again, before) {
		t.Error("made from the files it is another")
	}
	w.files.mu.Lock()
	for seq := range releases {
		delete(w.files.files, fmt.Sprint("channels/web/", seq+1))
	}
	w.files.mu.Unlock()
	if again := all(); !reflect.DeepEqual(again, before) {
		t.Error("the files are read again")
	}
	w.must(w.do("GET", "/api/v1/channels/web/history?below=x", "", nil), 400, api.BadRequest)
}

// TestHostPages: hosts come in pages to who asks for them, and whole to older clients.
func TestHostPages(t *testing.T) {
	w := newWorld(t)
	const n = 200
	for i := range n {
		name := fmt.Sprintf("web-%03d", i)
		w.must(w.do("PUT", "/api/v1/hosts/"+name+"/status", w.host, status(1, api.Idle, func(s *api.Status) {
			s.Target, s.Error = name, strings.Repeat("e", 4<<10)
			for range 5 {
				s.Checks = append(s.Checks, api.Check{Detail: strings.Repeat("d", 4<<10)})
			}
		})), 204, "")
	}
	whole := w.must(w.do("GET", "/api/v1/hosts?channel=web", w.op, nil), 200, "")
	if hosts := decode[struct{ Hosts []api.Host }](t, whole).Hosts; len(hosts) != n {
		t.Errorf("%d hosts", len(hosts))
	}
	c, err := api.NewClient(api.ClientOptions{Servers: []string{w.http.URL}, Token: w.op})
	if err != nil {
		t.Fatal(err)
	}
	hosts, etag, err := c.HostsAfter(t.Context(), "web", "", 0)
	if err != nil || len(hosts) != n || hosts[0].Host != "web-000" || hosts[n-1].Host != "web-199" {
		t.Fatalf("%d hosts, %v", len(hosts), err)
	}
	first := w.must(w.do("GET", "/api/v1/hosts?after=", w.op, nil), 200, "")
	if len(first.body) > 2<<20 || !strings.Contains(first.body, `"next":`) {
		t.Errorf("a page of %d bytes", len(first.body))
	}
	// A change on the last page is seen by who waits.
	if _, _, err := c.HostsAfter(t.Context(), "web", etag, time.Second); err != api.ErrNotModified { //nolint:errorlint // as it is documented
		t.Errorf("without a change: %v", err)
	}
	w.must(w.do("PUT", "/api/v1/hosts/web-199/status", w.host, status(2, api.Failed, func(s *api.Status) { s.Target = "web-199" })), 204, "")
	if hosts, _, err = c.HostsAfter(t.Context(), "web", etag, 5*time.Second); err != nil || hosts[n-1].Status.State != api.Failed {
		t.Errorf("after a change: %v", err)
	}
}

// TestManifestIsStreamed: one who does not read a manifest holds none of it in memory.
func TestManifestIsStreamed(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	m := w.closureOf(w.system("a"))
	path := "/api/v1/closures/" + m.Digest().Hex()
	got := w.must(w.do("GET", path, "", nil), 200, "")
	if got.body != string(m.Text()) || got.header.Get("Content-Length") != fmt.Sprint(len(m.Text())) {
		t.Errorf("%q", got.body)
	}
	w.must(w.do("HEAD", path, "", nil), 200, "")
	w.must(w.do("GET", path, "", nil, "If-None-Match", got.header.Get("ETag")), 304, "")
}

// TestAnswersNobodyTakes: of large answers there are only so many at once for those who do not read
// them; the others are told to come again, and who has a token waits for none of them.
func TestAnswersNobodyTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	paths := []string{"/api/v1/channels/web/history", "/api/v1/channels/web/releases/1"}
	for { // as many as clients that read nothing hold
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := w.s.shared.Answers.Take((&http.Request{RemoteAddr: "127.0.0.1:1"}).WithContext(ctx), "")
		cancel()
		if err != nil {
			break
		}
	}
	var asked sync.WaitGroup
	for _, path := range paths {
		asked.Go(func() {
			w.must(w.do("GET", path, w.ci, nil), 200, "")
			if a := w.must(w.do("GET", path, "", nil), 503, api.Unavailable); a.header.Get("Retry-After") == "" {
				t.Error(a.header)
			}
		})
	}
	asked.Wait()
}

// TestBodiesOfHosts: what hosts send takes no more memory than there is for it, and promotes do not
// wait for that.
func TestBodiesOfHosts(t *testing.T) {
	w := newWorld(t)
	w.promote(1, w.entry("*", w.system("a")))
	w.must(w.do("PUT", "/api/v1/hosts/web-1/status", w.host, status(1, api.Idle)), 204, "")
	for range 2 * (64 << 20) / intake.MaxHeld {
		w.dial("PUT /api/v1/hosts/web-1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.host + "\r\nContent-Length: 1000000\r\n\r\n{")
	}
	time.Sleep(500 * time.Millisecond)
	w.must(w.do("POST", "/api/v1/hosts/web-1/log?attempt=a&channel=web", w.host, []byte(strings.Repeat("x", 100_000))), 503, api.Unavailable)
	w.must(w.do("POST", "/api/v1/hosts/web-1/log?attempt=a&channel=web", w.host, []byte("short")), 204, "")
	w.promote(2, w.entry("*", w.system("a")))
}
