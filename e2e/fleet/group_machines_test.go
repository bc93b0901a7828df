package fleet

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"narwharf/signing/access/oidc/oidctest"
)

// A group is what a cloud makes machines of: an image, and its word for who each of them is.
type group struct {
	*follower
	issuer   *oidctest.Issuer
	image    string // folder of what h1 had on its disk, without what makes it that machine
	machines []*instance
}

// An instance is a machine of a group: its root, its processes, its network and its identity are its own, its init is
// host/init. Handles of it are not there: nobody enters it.
type instance struct {
	*machine
	cmd   *exec.Cmd
	ended chan struct{}
	began time.Time
}

// metadata gives a machine what Google's machines find on their own link: a JWT that says which instance they are. A
// machine of odd number has a name there, the others are given one.
func (g *group) metadata(m *machine, number int, word string) error {
	if out, err := execute(m.space.argv(m.name, "ip", "addr", "add", "169.254.169.254/32", "dev", "lo"), "", 0); err != nil || out.Code != 0 {
		return fmt.Errorf("%v: %w", out, err)
	}
	l, err := Machine{m: m}.ListenAt("169.254.169.254:80")
	if err != nil {
		return err
	}
	engine := map[string]any{"project_id": "acme", "instance_id": strconv.Itoa(4711000 + number)}
	kind := "drawn"
	if number%2 == 1 {
		kind, engine["instance_name"] = "named", "asg-named-"+word
	}
	serveHTTP(g.T, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" || r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		_, _ = fmt.Fprint(w, g.issuer.Token(map[string]any{
			"aud": r.URL.Query().Get("audience"), "sub": kind, "google": map[string]any{"compute_engine": engine},
		}))
	}))
	return nil
}

// makeImage makes the image of a host that is off, as people do who make one of a machine.
func (g *group) makeImage(host string) {
	g.T.Helper()
	h := g.hosts[host]
	g.image = filepath.Join(g.space.dir, "image")
	const steps = `cp -a "$1/changes/upper" "$2"
cp -a "$1/root/boot" "$2/"
rm -rf "$2/nix/var/narwharf" "$2/var/log/journal"`
	out, err := execute(g.space.argv("", "sh", "-euc", steps, "sh", h.dir(), g.image), "", 0)
	if err != nil || out.Code != 0 {
		g.T.Fatalf("make an image of %s: %v %v", host, out, err)
	}
}

// attach makes the machines' networks; nothing of them runs yet.
func (g *group) attach(n int) error {
	var names []string
	for i := range n {
		name := fmt.Sprintf("i%d", i)
		names = append(names, name)
		g.addresses[name] = fmt.Sprintf("10.77.0.%d", 30+i)
	}
	if err := g.space.script("space/network.sh", append([]string{gatewayAddress}, names...)...); err != nil {
		return err
	}
	for i, name := range names {
		m, err := g.newMachine(name, nil)
		if err != nil {
			return err
		}
		err = m.layer(map[string]string{
			"etc/fleet/address":        fmt.Sprintf("address=%s/24\ngateway=%s\nserver=%s\n", m.address, gatewayAddress, serverAddress),
			"usr/lib/systemd/systemd!": script("host/init"),
		})
		if err == nil {
			err = g.metadata(m, i, fmt.Sprintf("%03d", i))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		g.machines = append(g.machines, &instance{machine: m})
	}
	return nil
}

// on switches an instance on.
func (g *group) on(i *instance) error {
	lower := filepath.Join(i.dir(), "layer") + ":" + g.image + ":" + filepath.Join(g.hosts["h1"].dir(), "layer") + ":" + g.base
	argv := g.space.argv(i.name, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--propagation", "private",
		"sh", "-c", script("space/instance.sh"), "instance.sh", i.dir(), lower, i.name)
	log, err := os.Create(i.log())
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	i.cmd = exec.Command(argv[0], argv[1:]...)
	i.cmd.Stdout, i.cmd.Stderr, i.cmd.Dir = log, log, "/"
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	i.began, i.ended = time.Now(), make(chan struct{})
	if err := i.cmd.Start(); err != nil {
		return err
	}
	go func() { _ = i.cmd.Wait(); close(i.ended) }()
	return nil
}

func (i *instance) log() string { return filepath.Join(i.dir(), "log") }

// off ends all processes of an instance at once, as the end of a machine does.
func (i *instance) off(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(-i.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Errorf("%s: %v", i.name, err)
	}
	select {
	case <-i.ended:
	case <-time.After(time.Minute):
		t.Errorf("%s does not end", i.name)
	}
}

// cut takes an instance off the network: what it had open stays open at the other end.
func (i *instance) cut(t testing.TB) {
	t.Helper()
	if out, err := execute(i.space.argv("switch", "ip", "link", "set", i.name, "down"), "", 0); err != nil || out.Code != 0 {
		t.Errorf("%s: %v %v", i.name, out, err)
	}
}
