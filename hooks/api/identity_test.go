package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestMachineID(t *testing.T) {
	for file, want := range map[string]string{
		"": "", "\n": "", "uninitialized\n": "",
		// printf 'narwharf/machine\n0123456789abcdef0123456789abcdef' | sha256sum
		"0123456789abcdef0123456789abcdef\n": "aab872812daba3e945c250c6de891b312efb128ead36a6361a23017e1a24e202",
	} {
		if got := MachineID([]byte(file)); got != want {
			t.Errorf("%q: %q", file, got)
		}
	}
	if MachineID([]byte("a\n")) != MachineID([]byte("a")) || MachineID([]byte("a")) == MachineID([]byte("b")) {
		t.Error("it depends on the wrong bytes")
	}
}

func TestValidInstance(t *testing.T) {
	for s, want := range map[string]bool{
		strings.Repeat("0a", 16): true, "": false, strings.Repeat("0A", 16): false, strings.Repeat("a", 31): false,
		strings.Repeat("a", 33): false, strings.Repeat("g", 32): false, strings.Repeat("a", 32) + "\n": false,
	} {
		if ValidInstance(s) != want {
			t.Errorf("%q: %t", s, !want)
		}
	}
}

// What a client says of its machine is in polls, logs, reports and joins, and a
// client that is no host says nothing.
func TestClientSaysWhichMachineItIs(t *testing.T) {
	var paths []string
	var status Status
	var join Join
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.Method+" "+r.URL.String())
		switch {
		case strings.HasSuffix(r.URL.Path, "/status"):
			status = Status{}
			if err := json.NewDecoder(r.Body).Decode(&status); err != nil {
				t.Error(err)
			}
			w.WriteHeader(204)
		case r.URL.Path == "/api/v1/join":
			join = Join{}
			if err := json.NewDecoder(r.Body).Decode(&join); err != nil {
				t.Error(err)
			}
			w.WriteHeader(201)
			_ = json.NewEncoder(w).Encode(Joined{Host: "web-1", Channel: "web", Token: "nwt_own"})
		default:
			_, _ = w.Write([]byte("{}"))
		}
	}))
	t.Cleanup(srv.Close)
	ctx := context.Background()
	self := Self{Instance: strings.Repeat("0a", 16), Machine: "mm", BootID: "bb"}
	for _, c := range []struct {
		self  Self
		query string
	}{{self, "boot=bb&channel=web&instance=" + self.Instance + "&machine=mm"}, {Self{}, "channel=web"}} {
		paths = nil
		client, err := NewClient(ClientOptions{Servers: []string{srv.URL}, Self: c.self})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := client.Desired(ctx, "web-1", "web", "t", Have{}, "", 0); err != nil {
			t.Fatal(err)
		}
		if err := client.PostLog(ctx, "web-1", "a1", "web", []byte("text")); err != nil {
			t.Fatal(err)
		}
		sent := &Status{BootID: "other"}
		if err := client.PutStatus(ctx, "web-1", sent, false); err != nil {
			t.Fatal(err)
		}
		if sent.Instance != "" || status.Instance != c.self.Instance || status.Machine != c.self.Machine || status.BootID != "other" {
			t.Errorf("reported %+v, and the caller has %+v", status, sent)
		}
		joined, err := client.Join(ctx, "web-1", "web")
		if err != nil || joined.Token != "nwt_own" || join != (Join{Host: "web-1", Channel: "web", Instance: c.self.Instance, Machine: c.self.Machine}) {
			t.Errorf("joined %+v as %+v, %v", joined, join, err)
		}
		want := []string{"GET /api/v1/hosts/web-1/desired?" + strings.Replace(c.query+"&keys=0", "&machine=mm&keys=0", "&keys=0&machine=mm", 1) + "&seq=0&target=t", "POST /api/v1/hosts/web-1/log?attempt=a1&" + c.query}
		if paths[0] != want[0] || paths[1] != want[1] {
			t.Errorf("asked\n%q\nwant\n%q", paths[:2], want)
		}
	}
}
