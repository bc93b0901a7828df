package join

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/hooks/api"
	"narwharf/nixos/config"
	"narwharf/nixos/linux/sys"
	"narwharf/nixos/remote"
)

func TestSelf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var all sync.WaitGroup
	drawn := make([]api.Self, 8)
	for i := range drawn {
		all.Go(func() {
			var err error
			if drawn[i], err = Self(dir); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, s := range drawn {
		if s != drawn[0] || !api.ValidInstance(s.Instance) || s.BootID == "" {
			t.Errorf("at once it is %+v and %+v", s, drawn[0])
		}
	}
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 30 && (len(drawn[0].Machine) != 64 || strings.Contains(drawn[0].Machine, strings.TrimSpace(string(id)))) {
		t.Errorf("machine %q", drawn[0].Machine)
	}
	file := filepath.Join(dir, "instance")
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil { // a power cut
		t.Fatal(err)
	}
	if s, err := Self(dir); err != nil || s.Instance == drawn[0].Instance {
		t.Errorf("after an empty file: %+v, %v", s, err)
	}
	if err := os.WriteFile(file, []byte("mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Self(dir); err == nil || !strings.Contains(err.Error(), "remove the file") {
		t.Errorf("what is no instance: %v", err)
	}
}

// joinServer answers joins.
type joinServer struct {
	*httptest.Server
	mu     sync.Mutex
	status int // of the answer; 0: it breaks off
	asked  []api.Join
	tokens []string
}

func newJoinServer(t *testing.T) *joinServer {
	s := &joinServer{status: 201}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Method != http.MethodPost || r.URL.Path != "/api/v1/join" {
			http.NotFound(w, r)
			return
		}
		var j api.Join
		if err := json.NewDecoder(r.Body).Decode(&j); err != nil {
			t.Error(err)
		}
		s.asked = append(s.asked, j)
		s.tokens = append(s.tokens, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		switch s.status {
		case 0:
			s.status = 201
			panic(http.ErrAbortHandler)
		case 201:
			w.WriteHeader(201)
			_ = json.NewEncoder(w).Encode(api.Joined{Host: j.Host, Channel: j.Channel, Token: "nwt_own"})
		default:
			w.WriteHeader(s.status)
			_ = json.NewEncoder(w).Encode(api.Error{Kind: api.Forbidden, Message: "the token was used by web-9"})
			s.status = 201
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *joinServer) asks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

func TestJoin(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := newJoinServer(t)
	setup := func(t *testing.T) *config.Config {
		dir := t.TempDir()
		c := config.Default()
		c.Servers, c.Host, c.Channel, c.StateDir = []string{s.URL}, "web-1", "web", filepath.Join(dir, "state")
		c.JoinTokenFile = filepath.Join(dir, "join")
		if err := os.WriteFile(c.JoinTokenFile, []byte("nwt_join\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return c
	}
	joined := func(t *testing.T, c *config.Config, file string) {
		t.Helper()
		client, _, err := NewClient(t.Context(), c, "1", log)
		if err != nil {
			t.Fatal(err)
		}
		if client.Token() != "nwt_own" {
			t.Errorf("the client has %q", client.Token())
		}
		text, err := os.ReadFile(file)
		if err != nil || string(text) != "nwt_own\n" {
			t.Errorf("%s: %q, %v", file, text, err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
		if _, err := os.Stat(c.JoinTokenFile); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the join token is still there: %v", err)
		}
	}

	t.Run("into the state directory", func(t *testing.T) {
		c, before := setup(t), s.asks()
		joined(t, c, filepath.Join(c.StateDir, "token"))
		joined(t, c, filepath.Join(c.StateDir, "token")) // no second time
		if s.asks() != before+1 {
			t.Errorf("asked %d times", s.asks()-before)
		}
		self, err := Self(c.StateDir)
		last := s.asked[len(s.asked)-1]
		if want := (api.Join{Host: "web-1", Channel: "web", Instance: self.Instance, Machine: self.Machine}); err != nil || last != want || s.tokens[len(s.tokens)-1] != "nwt_join" {
			t.Errorf("asked %+v, want %+v", last, want)
		}
		// Later configurations need name neither.
		c.JoinTokenFile = ""
		if client, _, err := NewClient(t.Context(), c, "1", log); err != nil || client.Token() != "nwt_own" {
			t.Errorf("without join_token_file: %v", err)
		}
	})
	t.Run("into token_file", func(t *testing.T) {
		c := setup(t)
		c.TokenFile = filepath.Join(filepath.Dir(c.JoinTokenFile), "secrets", "token")
		joined(t, c, c.TokenFile)
	})
	t.Run("after an answer that was lost", func(t *testing.T) {
		c, before := setup(t), s.asks()
		s.status = 0
		joined(t, c, filepath.Join(c.StateDir, "token"))
		if s.asks() != before+2 {
			t.Errorf("asked %d times", s.asks()-before)
		}
	})
	t.Run("two at once", func(t *testing.T) {
		c, before := setup(t), s.asks()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				if _, _, err := NewClient(t.Context(), c, "1", log); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if s.asks() != before+1 {
			t.Errorf("asked %d times", s.asks()-before)
		}
	})
	t.Run("while another tries, until the time is over", func(t *testing.T) {
		c := setup(t)
		if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
			t.Fatal(err)
		}
		unlock, err := sys.AwaitLock(t.Context(), filepath.Join(c.StateDir, "join.lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, _, err := NewClient(ctx, c, "1", log); !errors.Is(err, remote.ErrNotJoined) {
			t.Errorf("%v", err)
		}
	})
	t.Run("a token that a boot would forget", func(t *testing.T) {
		c, before := setup(t), s.asks()
		secrets := filepath.Join(filepath.Dir(c.JoinTokenFile), "secrets")
		if err := os.Mkdir(secrets, 0o700); err != nil {
			t.Fatal(err)
		}
		c.TokenFile = filepath.Join(secrets, "narwharf", "token")
		j := &joiner{Config: c, log: log, inMemory: func(dir string) bool { return dir == secrets }}
		if _, _, err := j.client(t.Context(), "1"); err == nil || !strings.Contains(err.Error(), "token_file "+c.TokenFile+" lies in memory") {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(c.JoinTokenFile); err != nil || s.asks() != before {
			t.Errorf("it asked %d times, the join token: %v", s.asks()-before, err)
		}
		// What others put there at each boot is taken.
		if err := errors.Join(os.Mkdir(filepath.Dir(c.TokenFile), 0o700), os.WriteFile(c.TokenFile, []byte("nwt_own\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if client, _, err := j.client(t.Context(), "1"); err != nil || client.Token() != "nwt_own" {
			t.Errorf("%v", err)
		}
	})
	t.Run("a host that forgets all", func(t *testing.T) {
		c := setup(t)
		var said bytes.Buffer
		j := &joiner{Config: c, log: slog.New(slog.NewTextHandler(&said, nil)), inMemory: func(string) bool { return true }}
		if _, _, err := j.client(t.Context(), "1"); err != nil || !strings.Contains(said.String(), "state_dir lies in memory") {
			t.Errorf("%v, and it says\n%s", err, &said)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c := setup(t)
		s.status = 403
		if _, _, err := NewClient(t.Context(), c, "1", log); err == nil || err.Error() != "join web as web-1: the token was used by web-9" {
			t.Errorf("%v", err)
		}
		if _, err := os.Stat(c.JoinTokenFile); err != nil {
			t.Errorf("the join token is gone: %v", err)
		}
	})
	t.Run("a token that cannot be kept", func(t *testing.T) {
		c := setup(t)
		c.TokenFile = filepath.Join(c.JoinTokenFile, "token") // below a file
		if _, _, err := NewClient(t.Context(), c, "1", log); err == nil {
			t.Error("no error")
		}
		if _, err := os.Stat(c.JoinTokenFile); err != nil {
			t.Errorf("the join token is gone: %v", err)
		}
	})
	t.Run("no token at all", func(t *testing.T) {
		c := setup(t)
		if err := os.Remove(c.JoinTokenFile); err != nil {
			t.Fatal(err)
		}
		if _, _, err := NewClient(t.Context(), c, "1", log); err == nil || !strings.Contains(err.Error(), "there is no token in") || !strings.Contains(err.Error(), c.JoinTokenFile) {
			t.Errorf("%v", err)
		}
		c.JoinTokenFile, c.TokenFile = "", filepath.Join(c.StateDir, "gone")
		if _, _, err := NewClient(t.Context(), c, "1", log); err == nil || !strings.Contains(err.Error(), "gone") {
			t.Errorf("%v", err)
		}
		c.TokenFile = ""
		if client, _, err := NewClient(t.Context(), c, "1", log); err != nil || client.Token() != "" {
			t.Errorf("anonymous: %v", err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		c := setup(t)
		c.Servers = []string{"http://127.0.0.1:1"}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, _, err := NewClient(ctx, c, "1", log); !errors.Is(err, remote.ErrNotJoined) {
			t.Errorf("%v", err)
		}
	})
}
