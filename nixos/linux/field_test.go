package linux_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/cache/nar/dump"
	"narwharf/hooks/api"
	"narwharf/narinfo"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
	"narwharf/nixos/linux"
	"narwharf/nixos/sim"
	"narwharf/signing"
)

var builtNarwharf = sync.OnceValues(func() (string, error) {
	if program := os.Getenv(programEnv); program != "" {
		return program, nil
	}
	dir, err := os.MkdirTemp("", "narwharf-agent")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir+"/narwharf", "narwharf/cmd/narwharf").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	builtProgram = dir + "/narwharf"
	return builtProgram, nil
})

// builtProgram is what TestMain removes, "" if no test needed it.
var builtProgram string

// nixVersions are those that e2e/nix-clients.sh unpacks.
var nixVersions = []string{"2.8", "2.26", "2.34"}

func nixDir(t *testing.T, version string) string {
	t.Helper()
	base := os.Getenv("NARWHARF_NIX_DIR")
	if base == "" {
		base, _ = filepath.Abs("../../.cache/nix") // where make nix-clients puts them
	}
	dir := filepath.Join(base, version, "bin")
	if _, err := os.Stat(filepath.Join(dir, "nix-store")); err != nil {
		if os.Getenv("NARWHARF_CI") == "1" {
			t.Fatalf("no Nix %s in %s: make nix-clients", version, dir)
		}
		t.Skipf("no Nix %s in %s: make nix-clients", version, dir)
	}
	return dir
}

// A field is a host with real Nix on a store of its own, programs that stand
// in for systemd, and a server that holds a cache, a channel and reports.
type field struct {
	t      *testing.T
	dir    string
	server *httptest.Server
	key    signing.SecretKey // content
	keys   *sim.Promoter
	cfg    *config.Config

	mu       sync.Mutex
	files    map[string][]byte // of the server
	desired  *api.Desired
	statuses []*api.Status
	logs     []string
	refuse   bool // statuses
	hostile  func(w http.ResponseWriter, r *http.Request) (handled bool)
}

const systemdRun = `#!/bin/sh
# systemd-run, as far as the agent needs it
pre= post= desc=
while [ "$1" != -- ]; do
  case $1 in
    --property=ExecStartPre=*) pre=${1#--property=ExecStartPre=} ;;
    --property=ExecStopPost=*) post=${1#--property=ExecStopPost=} ;;
    --description=*) desc=${1#--description=} ;;
  esac
  shift
done
shift
[ ! -e "$FAKE/active" ] || { echo "Unit was already loaded" >&2; exit 1; }
echo "$desc" > "$FAKE/active"
INVOCATION_ID=$(date +%s%N | md5sum | cut -c1-32)
export INVOCATION_ID
$pre || { SERVICE_RESULT=exit-code EXIT_CODE=exited EXIT_STATUS=1 $post; rm "$FAKE/active"; exit 1; }
(
  path=$1; shift
  "$FAKE_ROOT$path" "$@" > "$FAKE/log-$INVOCATION_ID" 2>&1
  rc=$?
  export SERVICE_RESULT=success EXIT_CODE=exited EXIT_STATUS=$rc
  [ $rc = 0 ] || SERVICE_RESULT=exit-code
  $post
  rm "$FAKE/active"
) > /dev/null 2>&1 &
`

const systemctl = `#!/bin/sh
case $1 in
  show)
    if [ -e "$FAKE/active" ]; then echo ActiveState=active; echo "Description=$(cat "$FAKE/active")"
    else echo ActiveState=inactive; echo Description=x; fi
    echo InvocationID=0123456789abcdef0123456789abcdef ;;
  list-units) cat "$FAKE/failed" 2> /dev/null || true ;;
esac
`

const switchScript = `#!/bin/sh
top=${0%%/bin/switch-to-configuration}
top=${top#"$FAKE_ROOT"}
echo "%s $1"
case $1 in
  test) %s ln -sfn "$top" "$FAKE/run/current-system" ;;
  boot) echo "$top" > "$FAKE/boot-entry" ;;
esac
exit 0
`

func newField(t *testing.T, version string) *field {
	t.Helper()
	nix := nixDir(t, version)
	// Before HOME is another one, where go build would find nothing.
	if _, err := builtNarwharf(); err != nil {
		t.Fatal(err)
	}
	key, err := signing.GenerateKey("ci-1")
	if err != nil {
		t.Fatal(err)
	}
	f := &field{t: t, dir: t.TempDir(), key: key, keys: sim.NewPromoter(), files: make(map[string][]byte)}
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", f.dir).Run() }) //nolint:errcheck // so that it can be removed
	for _, d := range []string{"bin", "run", "root", "home", "conf", "state"} {
		if err := os.MkdirAll(filepath.Join(f.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.write("bin/systemd-run", systemdRun, 0o755)
	f.write("bin/systemctl", systemctl, 0o755)
	f.write("bin/journalctl", "#!/bin/sh\nfor a; do :; done\ncat \"$FAKE/log-${a#_SYSTEMD_INVOCATION_ID=}\"\n", 0o755)
	f.write("conf/nix.conf", "build-users-group =\nsandbox = false\nsubstituters =\n", 0o644)
	for k, v := range map[string]string{
		"PATH": filepath.Join(f.dir, "bin") + ":" + nix + ":" + os.Getenv("PATH"), "FAKE": f.dir, "FAKE_ROOT": f.dir + "/root", "HOME": f.dir + "/home",
		"NIX_REMOTE": "local?root=" + f.dir + "/root", "NIX_CONF_DIR": f.dir + "/conf", "NIX_STORE_DIR": "/nix/store", "NIX_STATE_DIR": f.dir + "/root/nix/var/nix",
		"NIX_USER_CONF_FILES": "/dev/null",
	} {
		t.Setenv(k, v)
	}
	// A host has a store before it has an agent.
	if out, err := exec.Command("nix-store", "--init").CombinedOutput(); err != nil {
		t.Fatalf("nix-store --init: %v\n%s", err, out)
	}
	f.server = httptest.NewServer(f)
	t.Cleanup(f.server.Close)
	f.write("token", "nwt_test\n", 0o600)
	f.write("agent.toml", fmt.Sprintf(`server = [%q]
origin = %q
channel = %q
host = "h1"
system = %q
token_file = "token"
keys = [%q]
content_keys = [%q]
state_dir = "state"
store_root = "root"
nix_state = "root/nix/var/nix"
profile = "root/nix/var/nix/profiles/system"
run_dir = "run"
min_free = 0
[probation]
minimum = "0s"
settle = "1s"
interval = "100ms"
confirm_timeout = "2s"
`, f.server.URL, sim.Origin, sim.Channel, sim.Machine, f.keys.Key.Public().String(), key.Public().String()), 0o600)
	if f.cfg, err = config.Load(f.dir + "/agent.toml"); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *field) write(name, text string, mode os.FileMode) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), mode); err != nil {
		f.t.Fatal(err)
	}
}

// ServeHTTP is the server.
func (f *field) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	hostile := f.hostile
	f.mu.Unlock()
	if hostile != nil && hostile(w, r) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Header.Get("Authorization") == "" {
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	body, _ := io.ReadAll(r.Body) // the JSON would not parse
	switch r.Method + " " + r.URL.Path {
	case "GET /nix-cache-info":
		_, _ = fmt.Fprint(w, "StoreDir: /nix/store\nWantMassQuery: 1\n")
	case "GET /api/v1/hosts/h1/desired":
		text, err := json.Marshal(f.desired)
		if err != nil {
			panic(err)
		}
		etag := fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(text))[:16])
		w.Header().Set("ETag", etag)
		if r.Header.Get("If-None-Match") == etag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(text) //nolint:errcheck // a test's server
	case "PUT /api/v1/hosts/h1/status":
		s := new(api.Status)
		if err := json.Unmarshal(body, s); err != nil {
			panic(err)
		}
		if f.refuse {
			http.Error(w, `{"kind":"forbidden","message":"no"}`, http.StatusForbidden)
			return
		}
		if n := len(f.statuses); n > 0 && (s.StartID < f.statuses[n-1].StartID || s.StartID == f.statuses[n-1].StartID && s.Counter <= f.statuses[n-1].Counter) {
			w.WriteHeader(http.StatusConflict)
			json.NewEncoder(w).Encode(api.Error{Kind: api.StaleStatus, Message: "stale", StartID: f.statuses[n-1].StartID}) //nolint:errcheck // a test's server
			return
		}
		f.statuses = append(f.statuses, s)
		w.WriteHeader(http.StatusNoContent)
	case "POST /api/v1/hosts/h1/log":
		f.logs = append(f.logs, string(body))
		w.WriteHeader(http.StatusNoContent)
	default:
		text, ok := f.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(text))
	}
}

// system puts a NixOS-like system into the cache, signed unless told.
func (f *field) system(name, inTest string, signed bool) *narinfo.Info {
	f.t.Helper()
	dir := filepath.Join(f.dir, "build-"+name)
	if err := os.MkdirAll(dir+"/bin", 0o755); err != nil {
		f.t.Fatal(err)
	}
	f.write("build-"+name+"/nixos-version", name, 0o644)
	f.write("build-"+name+"/bin/switch-to-configuration", fmt.Sprintf(switchScript, name, inTest), 0o755)
	lib := f.add("lib-"+name, filepath.Join(dir, "nixos-version"), nil, signed)
	return f.add("nixos-system-"+name, dir, []narinfo.Path{lib.Path}, signed)
}

func (f *field) add(name, dir string, refs []narinfo.Path, signed bool) *narinfo.Info {
	f.t.Helper()
	var b bytes.Buffer
	if _, err := dump.Write(context.Background(), &b, dir); err != nil {
		f.t.Fatal(err)
	}
	p, err := narinfo.ParsePath(sim.StoreDir, strings.Replace(sim.Path(name), "nixos-system-"+name, name, 1))
	if err != nil {
		f.t.Fatal(err)
	}
	i := &narinfo.Info{StoreDir: sim.StoreDir, Path: p, URL: "nar/" + p.Hash() + ".nar", Compression: "none", FileSize: int64(b.Len()),
		NarHash: sha256.Sum256(b.Bytes()), NarSize: int64(b.Len()), References: refs}
	if signed {
		i.Sigs = signInfo(i, []signing.SecretKey{f.key})
	}
	f.put("/"+i.URL, b.Bytes())
	f.put("/"+p.Hash()+".narinfo", i.Append(nil))
	return i
}

func (f *field) put(path string, text []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files[path] = text
}

// promote releases a system and its lib.
func (f *field) promote(seq int64, action signing.Action, infos ...*narinfo.Info) {
	f.t.Helper()
	m, err := signing.NewManifest(infos)
	if err != nil {
		f.t.Fatal(err)
	}
	f.put("/api/v1/closures/"+m.Digest().Hex(), m.Text())
	p := f.keys.PointerOf(signing.Head{Origin: sim.Origin, Channel: sim.Channel, Seq: seq, Created: time.Unix(1_700_000_000, 0).UTC()}, signing.Entry{Target: signing.Everyone, StorePath: infos[0].Path.In(sim.StoreDir), Closure: m.Digest(), System: sim.Machine, Action: action})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.desired = &api.Desired{Channel: sim.Channel, Seq: seq, Pointer: p, Grant: &api.Grant{Seq: seq}}
}

// once runs an agent until it is done.
func (f *field) once() (*journal.Journal, *api.Status) {
	f.t.Helper()
	client, err := api.NewClient(api.ClientOptions{Servers: f.cfg.Servers, TokenFile: f.cfg.TokenFile})
	if err != nil {
		f.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(f.t.Output(), nil))
	program, err := builtNarwharf()
	if err != nil {
		f.t.Fatal(err)
	}
	host, err := linux.New(f.cfg, client, program, log)
	if err != nil {
		f.t.Fatal(err)
	}
	agent := host.Agent("test")
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	state, err := agent.Once(ctx)
	host.Close(ctx)
	if err != nil {
		f.t.Fatalf("it is %s: %v", state, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.statuses) == 0 {
		return agent.Journal(), new(api.Status)
	}
	return agent.Journal(), f.statuses[len(f.statuses)-1]
}

func (f *field) valid(i *narinfo.Info) bool {
	return exec.Command("nix-store", "--check-validity", i.Path.In(sim.StoreDir)).Run() == nil
}

func (f *field) read(name string) string {
	if target, err := os.Readlink(filepath.Join(f.dir, name)); err == nil {
		return target
	}
	text, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// until turns an agent until stop says so.
func (f *field) until(stop func(api.State, string) bool) error {
	client, err := api.NewClient(api.ClientOptions{Servers: f.cfg.Servers, TokenFile: f.cfg.TokenFile})
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(f.t.Output(), nil))
	host, err := linux.New(f.cfg, client, os.Args[0], log)
	if err != nil {
		return err
	}
	agent := host.Agent("test")
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	defer host.Close(ctx)
	if err := agent.Start(ctx); err != nil {
		return err
	}
	for {
		if err := agent.Turn(ctx); err != nil {
			return err
		}
		if j := agent.Journal(); stop(j.State, j.Error) {
			return nil
		}
	}
}
