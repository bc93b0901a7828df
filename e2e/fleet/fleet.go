package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/e2e"
)

const (
	gatewayAddress = "10.77.0.1"
	serverAddress  = "10.77.0.2"
	ciAddress      = "10.77.0.3"
	serverName     = "cache"
	edgeAddress    = "10.77.0.4"
	edgeName       = "edge"
	newNix         = "forky" // the suite of e2e/nix-clients.sh that CI and the last host take
)

// Options say what a fleet consists of. The zero value is three hosts.
type Options struct {
	Hosts int // h1, h2, …; 0: three
	// System is what every host runs from its first boot on, asked when server and CI are there, so
	// that it can name their keys and addresses. nil: a system without an agent.
	System func(*Fleet) System
	// Host changes what is special about one host, nil: nothing. It is asked after System, whose
	// answer it finds in h.System.
	Host func(f *Fleet, name string, h *HostOptions)
	// Config edits the config.toml that `narwharf init` made.
	Config func(toml string) string
	// Edge makes a server of a site, http://edge, and is the config.toml of it; nil: there is none.
	Edge func(f *Fleet, toml string) string
	// Off leaves the hosts installed but not booted.
	Off bool
}

// HostOptions is what can differ between hosts.
type HostOptions struct {
	Suite     string            // whose Nix runs as daemon: "bookworm" (Debian 12's) or a suite of nix-clients.sh; the last host has "forky"
	System    *System           // what it runs first; never nil
	Files     map[string]string // more files of its tree, from the beginning: "etc/narwharf/token"
	TmpfsRoot bool              // a reboot forgets everything but /nix and /boot; the machine id, too
	BootSize  int64             // of /boot, default 8 MiB
	StoreSize int64             // of /nix, default: no limit of its own
}

// A Fleet is a server, a CI machine and hosts. It belongs to the test that made it; [Fleet.For]
// lends it to a subtest.
type Fleet struct {
	T testing.TB
	*state
}

// state is what all handles of a fleet share.
type state struct {
	space     *space
	base      string
	addresses map[string]string
	server    *server
	edge      *server // nil: there is none
	ci        *machine
	hosts     map[string]*host
	names     []string // of the hosts
	keys      map[string]string

	closing sync.Once
}

// open fleets, so that Main can tell what was not closed.
var open sync.Map

// New boots a fleet: the server runs, CI has its keys, every host runs its first system. It is torn
// down with the test. Twenty seconds at most, and a minute more when the base tree has to be made.
func New(t testing.TB, options Options) *Fleet {
	t.Helper()
	need(t)
	base, err := Base()
	if err != nil {
		lacking(t, "%v", err)
	}
	bin := binary(t, base)
	f := &Fleet{T: t, state: &state{base: base, addresses: map[string]string{}, hosts: map[string]*host{}, keys: map[string]string{}}}
	if f.space, err = openSpace(); err != nil {
		lacking(t, "%v", err)
	}
	open.Store(f.state, t.Name())
	t.Cleanup(f.close)
	if err := f.build(bin, options); err != nil {
		t.Fatalf("set up the fleet: %v", err)
	}
	if !options.Off {
		f.BootAll()
	}
	return f
}

// For is the same fleet for a subtest, which its failures are then of.
func (f *Fleet) For(t testing.TB) *Fleet { return &Fleet{T: t, state: f.state} }

func (f *Fleet) build(bin string, options Options) error {
	if options.Hosts == 0 {
		options.Hosts = 3
	}
	f.addresses["gateway"], f.addresses[serverName], f.addresses["ci"] = gatewayAddress, serverAddress, ciAddress
	network := []string{gatewayAddress, serverName + "=" + serverAddress, "ci=" + ciAddress}
	for i := range options.Hosts {
		name := fmt.Sprintf("h%d", i+1)
		f.names = append(f.names, name)
		f.addresses[name] = fmt.Sprintf("10.77.0.%d", 11+i)
		network = append(network, name)
	}
	if options.Edge != nil {
		f.addresses[edgeName] = edgeAddress
		network = append(network, edgeName+"="+edgeAddress)
	}
	if err := f.space.script("space/network.sh", network...); err != nil {
		return err
	}
	if err := f.setUpServer(&f.server, serverName, bin, options.Config); err != nil {
		return err
	}
	if err := f.setUpCI(bin); err != nil {
		return err
	}
	if options.Edge != nil {
		if err := f.setUpServer(&f.edge, edgeName, bin, func(toml string) string { return options.Edge(f, toml) }); err != nil {
			return err
		}
	}
	each := make([]HostOptions, len(f.names))
	var systems []System
	for i, name := range f.names {
		o := HostOptions{Suite: "bookworm", BootSize: 8 << 20, System: &System{Version: "0"}, Files: map[string]string{}}
		if i == len(f.names)-1 && i > 0 {
			o.Suite = newNix
		}
		if options.System != nil {
			*o.System = options.System(f)
		}
		if options.Host != nil {
			options.Host(f, name, &o)
		}
		each[i] = o
		systems = append(systems, *o.System)
	}
	for i, name := range f.names {
		if err := f.newHost(name, each[i]); err != nil {
			return err
		}
	}
	paths := f.CI().BuildSystems(systems...)
	f.CI().Push(paths...)
	return parallel(f.names, func(i int, name string) error { return f.hosts[name].install(paths[i]) })
}

// machineID is the same for a name in every run, so that nothing depends on chance.
func machineID(name string) string {
	sum := sha256.Sum256([]byte("narwharf fleet " + name))
	return hex.EncodeToString(sum[:16])
}

// newMachine has its common files in its layer and is not mounted yet.
func (f *Fleet) newMachine(name string, env []string, options ...string) (*machine, error) {
	m := &machine{space: f.space, name: name, address: f.addresses[name], names: f.addresses, base: f.base, options: options, env: env}
	return m, m.layer(common(name, machineID(name), f.addresses))
}

// parallel does work for every name at once.
func parallel(names []string, work func(i int, name string) error) error {
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			if err := work(i, name); err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Host is a host by its name.
func (f *Fleet) Host(name string) *Host {
	f.T.Helper()
	h, ok := f.hosts[name]
	if !ok {
		f.T.Fatalf("no host %q in this fleet, only %s", name, strings.Join(f.names, " "))
	}
	return f.handle(h)
}

// Hosts are all hosts in the order of their names.
func (f *Fleet) Hosts() []*Host {
	f.T.Helper()
	var all []*Host
	for _, name := range f.names {
		all = append(all, f.Host(name))
	}
	return all
}

// BootAll boots every host that is off, all at once, and waits until they are up.
func (f *Fleet) BootAll() {
	f.T.Helper()
	if err := parallel(f.names, func(_ int, name string) error { return f.hosts[name].boot(BootTimeout) }); err != nil {
		f.T.Fatalf("boot: %v", err)
	}
}

// Roots says where the hosts' roots lie, where it is not on a disk for all.
func (f *Fleet) Roots() string {
	var forget []string
	for _, name := range f.names {
		if f.hosts[name].tmpfsRoot {
			forget = append(forget, name)
		}
	}
	if len(forget) == 0 {
		return ""
	}
	return "tmpfs root: " + strings.Join(forget, " ")
}

// Each runs something for every host at once; what it returns ends the test.
func (f *Fleet) Each(work func(h *Host) error) {
	f.T.Helper()
	f.EachOf(f.names, work)
}

// EachOf is Each for some of the hosts.
func (f *Fleet) EachOf(names []string, work func(h *Host) error) {
	f.T.Helper()
	if err := parallel(names, func(_ int, name string) error { return work(f.handle(f.hosts[name])) }); err != nil {
		f.T.Error(err)
	}
	if f.T.Failed() { // perhaps by a handle, which could end its own goroutine only
		f.T.FailNow()
	}
}

// close asks what has to hold of server and hosts, saves logs and takes the fleet away.
func (f *Fleet) close() {
	f.T.Helper()
	f.closing.Do(func() {
		f.T.Helper()
		defer open.Delete(f.state)
		for _, s := range []*server{f.edge, f.server} {
			if s != nil {
				f.serverOf(s).close()
			}
		}
		for _, name := range f.names {
			if h := f.hosts[name]; h != nil && f.handle(h).Boots() > 0 {
				crashed(f.T, name, h.log())
			}
		}
		if f.T.Failed() {
			f.saveLogs()
		}
		begin := time.Now()
		if err := f.space.close(); err != nil {
			f.T.Errorf("the fleet left something behind; `go run ./e2e/fleet/cmd clean` tries again: %v", err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			f.T.Logf("taking the fleet away took %v", took)
		}
	})
}

// saveLogs shows the end of every machine's log and copies the logs to NARWHARF_FLEET_LOGS.
func (f *Fleet) saveLogs() {
	f.T.Helper()
	logs := map[string]string{}
	if f.server != nil {
		logs[serverName] = f.Server().Log()
	}
	if f.edge != nil {
		logs[edgeName] = f.Edge().Log()
	}
	for _, name := range f.names {
		if h := f.hosts[name]; h != nil {
			logs[name] = h.log()
		}
	}
	dir := os.Getenv("NARWHARF_FLEET_LOGS")
	for name, text := range logs {
		f.T.Logf("end of the log of %s\n%s", name, e2e.Tail(text, 3000))
		if dir == "" {
			continue
		}
		file := filepath.Join(dir, strings.ReplaceAll(f.T.Name(), "/", "-")+"-"+name+".log")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			f.T.Logf("save the log of %s: %v", name, err)
		}
	}
}
