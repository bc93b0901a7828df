package fleet

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHarness asks whether the machines are what the tests of others take them for.
func TestHarness(t *testing.T) {
	onlyLong(t)
	before := interfaces(t)
	begin := time.Now()
	f := New(t, Options{System: func(*Fleet) System { return System{Version: "0", Agent: AgentStub} }})
	up := time.Since(begin)
	Run(t, "three hosts", func(s *Story) {
		s.Took("up after", up)
		threeHosts(s.T, f.For(s))
	})
	Run(t, "networks", func(s *Story) { networks(s.T, f.For(s), before) })
	Run(t, "power", func(s *Story) { power(s.T, f.For(s)) })
	Run(t, "server", func(s *Story) { serverLife(s.T, f.For(s)) })
	Run(t, "jobs", func(s *Story) { jobs(s.T, f.For(s)) })
}

func threeHosts(t *testing.T, f *Fleet) {
	bootIDs, machineIDs := map[string]bool{}, map[string]bool{}
	for i, h := range f.Hosts() {
		s := h.State()
		bootIDs[s.BootID] = true
		machineIDs[h.ReadFile("/etc/machine-id")] = true
		if s.Running != "running" || len(s.Failed) != 0 {
			t.Errorf("%s is %s: %v", h.Name(), s.Running, s.Failed)
		}
		if s.Current == "" || s.Booted != s.Current || s.Profile != s.Current || s.BootEntry != s.Current || s.Hello != "0" || s.Agent != "active" {
			t.Errorf("%s: %+v", h.Name(), s)
		}
		if name := h.Must("hostname"); name != h.Name() || name != fmt.Sprintf("h%d", i+1) {
			t.Errorf("%s calls itself %q", h.Name(), name)
		}
		want := "2.8.0"
		if i == 2 {
			want = "2.34."
		}
		daemon := h.Sh(`pid=$(systemctl show nix-daemon.service --property=MainPID --value); [ $pid != 0 ] || systemctl start nix-daemon.service
nix store ping 2>&1`)
		if !strings.Contains(daemon, "Version: "+want) {
			t.Errorf("%s: the daemon is not Nix %s: %s", h.Name(), want, daemon)
		}
		if check := h.Exec("/run/current-system/etc/narwharf/health.d/hello"); check.Code != 0 {
			t.Errorf("%v", check)
		}
		if body := get(t, f.CI().HTTP(), "http://"+h.Name()+":8000/"); body != "0\n" {
			t.Errorf("%s answers %q", h.Name(), body)
		}
	}
	if len(bootIDs) != 3 || len(machineIDs) != 3 {
		t.Errorf("boot ids %v, machine ids %v", bootIDs, machineIDs)
	}
	if out := f.Host("h1").Exec("systemd-run", "--wait", "--pipe", "--quiet", "/bin/sh", "-c", "echo from a unit; exit 7"); out.Code != 7 || out.Line() != "from a unit" {
		t.Errorf("%v", out)
	}
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func interfaces(t *testing.T) string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

func networks(t *testing.T, f *Fleet, before string) {
	if now := interfaces(t); now != before {
		t.Errorf("the machine's interfaces were %s and are %s", before, now)
	}
	h1, h2 := f.Host("h1"), f.Host("h2")
	want := func(m Machine, to, what string) {
		t.Helper()
		if got := m.Reach(to); got != what {
			t.Errorf("%s reaches %s: %s, want %s", m.Name(), to, got, what)
		}
	}
	want(h1.Machine, "cache:80", "open")
	want(h1.Machine, "gateway:80", "refused")
	want(h1.Machine, "h2:8000", "open")
	want(f.CI().Machine, "cache:80", "open")
	// The way out: an address of this machine, and one that its router might know.
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			want(h1.Machine, net.JoinHostPort(ip.IP.String(), "22"), "nobody")
		}
	}

	h1.Link(LinkDown)
	Eventually(t, 5*time.Second, "h1 sees that the cable is out", func() error {
		if link := h1.Must("ip", "-brief", "link", "show", "eth0"); strings.Contains(link, "LOWER_UP") {
			return fmt.Errorf("eth0 is %s", link)
		}
		return nil
	})
	want(h1.Machine, "cache:80", "nobody")
	want(h1.Machine, "gateway:80", "nobody")
	h1.Link(LinkUp)
	want(h1.Machine, "cache:80", "open")
	h1.Link(LinkDead)
	want(h1.Machine, "cache:80", "nobody")
	if state := h1.Sh("ip -brief link show eth0"); !strings.Contains(state, "LOWER_UP") {
		t.Errorf("a dead port has no carrier: %s", state)
	}
	h1.Link(LinkUp)
	want(h1.Machine, "cache:80", "open")
	f.Server().Link(LinkDown)
	want(h1.Machine, "cache:80", "nobody")
	want(h1.Machine, "gateway:80", "refused")
	want(h2.Machine, "h1:8000", "open")
	f.Server().Link(LinkUp)
	want(h2.Machine, "cache:80", "open")

	listener, err := f.CI().Listen(9000)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	want(h1.Machine, "ci:9000", "open")
}

func power(t *testing.T, f *Fleet) {
	h := f.Host("h1")
	first := h.State()
	h.WriteFile("/var/lib/kept", "kept\n", 0o644)
	h.WriteFile("/run/forgotten", "", 0o644)

	begin := time.Now()
	h.Reboot()
	t.Logf("reboot: %v", time.Since(begin))
	second := h.State()
	if second.BootID == first.BootID || second.Current != first.Current || second.Booted != first.Booted || h.Boots() != 2 {
		t.Errorf("after a reboot: %+v", second)
	}
	if h.ReadFile("/var/lib/kept") != "kept\n" || h.Exec("test", "-e", "/run/forgotten").Code == 0 {
		t.Error("a reboot keeps /var and forgets /run")
	}
	if got := h.Reach("cache:80"); got != "open" {
		t.Errorf("after a reboot the server is %s", got)
	}

	h.PowerOff()
	if h.On() {
		t.Error("on after poweroff")
	}
	h.Boot()
	third := h.State()
	h.PowerCut()
	if h.On() || f.Host("h2").Reach("h1:8000") == "open" {
		t.Error("on after a power cut")
	}
	h.Boot()
	fourth := h.State()
	if third.BootID == second.BootID || fourth.BootID == third.BootID || fourth.Running != "running" {
		t.Errorf("%+v, %+v", third, fourth)
	}
	// A reboot that something on the host asks for is seen through too.
	h.Must("systemd-run", "--quiet", "/bin/sh", "-c", "sleep 0.1; systemctl reboot")
	h.AwaitBoot(5)
	if h.State().BootID == fourth.BootID {
		t.Error("no new boot id")
	}
	// The others have not noticed anything.
	for _, other := range []string{"h2", "h3"} {
		if s := f.Host(other).State(); s.Running != "running" || f.Host(other).Boots() != 1 {
			t.Errorf("%s: %+v", other, s)
		}
	}
}

func serverLife(t *testing.T, f *Fleet) {
	s := f.Server()
	if got := get(t, f.CI().HTTP(), s.URL()+"/nix-cache-info"); !strings.Contains(got, "StoreDir: /nix/store") {
		t.Errorf("%q", got)
	}
	s.Stop()
	if got := f.Host("h1").Reach("cache:80"); got != "refused" {
		t.Errorf("a stopped server: %s", got)
	}
	s.Start()
	pid := s.Pid()
	s.Kill()
	s.Start()
	if s.Pid() == pid {
		t.Error("still the same process")
	}
	s.Restart()
	token := s.Token("another", "pull")
	if token == "" || !strings.Contains(s.Narwharf("token", "list", "--config", configFile).Stdout, "another") {
		t.Errorf("token %q is not listed", token)
	}
	s.Configure(func(toml string) string { return strings.Replace(toml, `anonymous = ["pull"]`, `anonymous = []`, 1) })
	s.Restart()
	path := f.Host("h1").State().Current
	narinfo := s.URL() + "/" + strings.TrimPrefix(path, "/nix/store/")[:32] + ".narinfo"
	status := func() int {
		res, err := f.CI().HTTP().Get(narinfo)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if status() != http.StatusUnauthorized {
		t.Errorf("a private cache answers %d", status())
	}
	s.Configure(func(toml string) string { return strings.Replace(toml, `anonymous = []`, `anonymous = ["pull"]`, 1) })
	s.Restart()
	if status() != http.StatusOK {
		t.Errorf("an open cache answers %d", status())
	}
}

func jobs(t *testing.T, f *Fleet) {
	h := f.Host("h2")
	sleeps := func() bool { return h.Exec("/bin/sh", "-c", "cat /proc/[0-9]*/comm | grep -q nap").Code == 0 }
	h.Sh("cp /bin/sleep /run/nap")
	short := h.Start("/bin/sh", "-c", "sleep 0.2; echo done; exit 3")
	long := h.Start("/run/nap", "1234.5")
	if short.Ended() {
		t.Error("a job that ended before it began")
	}
	if out := short.Wait(10 * time.Second); out.Code != 3 || out.Line() != "done" {
		t.Errorf("%v", out)
	}
	Eventually(t, 5*time.Second, "the long job runs", func() error {
		if !sleeps() {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	long.Kill()
	if out := long.Wait(10 * time.Second); out.Code != -1 {
		t.Errorf("%v", out)
	}
	gone := func() error {
		if sleeps() {
			return fmt.Errorf("it runs")
		}
		return nil
	}
	Eventually(t, 2*time.Second, "the killed job ends", gone)
	if out := h.ExecFor(300*time.Millisecond, "/run/nap", "1234.5"); !out.TimedOut || out.Code != -1 {
		t.Errorf("%v", out)
	}
	Eventually(t, 2*time.Second, "what ran into its time-out ends", gone)
}
