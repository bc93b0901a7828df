package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/hooks/configfile"
	"narwharf/hooks/window"
	"narwharf/nixos"
	"narwharf/nixos/desired"
	"narwharf/nixos/effect"
	"narwharf/nixos/identity"
	"narwharf/nixos/linux/witness"
	"narwharf/nixos/machine"
	"narwharf/nixos/probation"
	"narwharf/nixos/relay"
	"narwharf/signing"
)

// Config is an agent's configuration, a TOML file that usually comes with the
// system (/etc/narwharf/agent.toml). docs/agent.md explains every key. After
// Load all paths are absolute and all values are checked.
type Config struct {
	Servers  []string `toml:"server"`    // base URLs of one server, tried in turn
	CacheURL string   `toml:"cache_url"` // where paths come from; the servers if empty
	// CacheTokenFile has the token of CacheURL, where that has another origin than the servers.
	CacheTokenFile string `toml:"cache_token_file"`

	Origin    string `toml:"origin"`     // as the releases have it
	Channel   string `toml:"channel"`    //
	Host      string `toml:"host"`       // name towards the server; the machine's host name if empty
	Target    string `toml:"target"`     // whose entry is taken; Host if empty
	System    string `toml:"system"`     // "x86_64-linux"; this program's if empty
	TokenFile string `toml:"token_file"` // the host's token; StateDir/token if empty and that is there
	// JoinTokenFile has a token that is exchanged for the host's own, which
	// then lies in TokenFile.
	JoinTokenFile string `toml:"join_token_file"`
	// Identity is how the host says who it is, in place of a token.
	Identity identity.Config `toml:"identity"`
	CAFile   string          `toml:"ca_file"` //
	// CertFile and KeyFile are a certificate that the host shows to the servers.
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`

	Keys      []string `toml:"keys"`      // whose signatures make a release
	Threshold int      `toml:"threshold"` // how many of them
	// KeysVersion is of the statement about the channel's keys that Keys are of.
	KeysVersion  int64         `toml:"keys_version"`
	RecoveryKeys []string      `toml:"recovery_keys"` // one of which revokes others
	RequireFresh Duration      `toml:"require_fresh"` // an older release is an alarm; 0: none is
	ContentKeys  []string      `toml:"content_keys"`  // whose signatures make a path
	ServerKeys   []string      `toml:"server_keys"`   // the same, with trust = "server" alone
	Trust        Trust         `toml:"trust"`
	Foreign      nixos.Foreign `toml:"foreign_paths"`
	MinSeq       int64         `toml:"min_seq"`

	StateDir   string   `toml:"state_dir"`
	StoreDir   string   `toml:"store_dir"`
	StoreRoot  string   `toml:"store_root"`  // in front of StoreDir, for a store that is mounted elsewhere
	NixState   string   `toml:"nix_state"`   // Nix's state: its database and roots
	Profile    string   `toml:"profile"`     // the system profile
	RunDir     string   `toml:"run_dir"`     // has current-system and booted-system
	MinFree    int64    `toml:"min_free"`    // bytes that stay free on the store's disk
	NixOptions []string `toml:"nix_options"` // more options of nix-store, as ["--option", "cores", "2"]

	Probation struct {
		Minimum        Duration `toml:"minimum"`
		Settle         Duration `toml:"settle"`
		ConfirmTimeout Duration `toml:"confirm_timeout"`
		Interval       Duration `toml:"interval"`
		IgnoreUnits    []string `toml:"ignore_units"` // patterns of names, as "backup-*.service"
	} `toml:"probation"`
	Activation struct {
		Timeout Duration       `toml:"timeout"` // of one run of switch-to-configuration
		Auto    signing.Action `toml:"auto"`    // what the action auto means here: auto, switch or boot
		// Specialisation is the one of each system that live switches lead to.
		Specialisation string `toml:"specialisation"`
	} `toml:"activation"`
	Checks    []Check       `toml:"check"`
	HealthD   api.CheckMode `toml:"health_d"` // mode of the new system's etc/narwharf/health.d
	Witnesses []string      `toml:"witnesses"`

	Drift struct {
		Action DriftAction `toml:"action"`
		Grace  Duration    `toml:"grace"` // before it returns
	} `toml:"drift"`
	Test struct {
		Deadline Duration `toml:"deadline"` // after which a test is gone back from; 0: a boot ends it
	} `toml:"test"`
	Reboot struct {
		Allow   desired.RebootAllow `toml:"allow"`
		Windows []window.Window     `toml:"windows"`
		Kexec   bool                `toml:"kexec"` // past the firmware, where that is possible
	} `toml:"reboot"`
	Directives struct { // of the server, unsigned
		Obey    desired.Obey `toml:"obey"`
		Retries int          `toml:"retries"` // of one release
	} `toml:"directives"`
	Hooks struct { // each a program and its arguments
		PreSwitch  []string `toml:"pre_switch"`
		PostSwitch []string `toml:"post_switch"`
		PreReboot  []string `toml:"pre_reboot"`
		Timeout    Duration `toml:"timeout"` // of each
	} `toml:"hooks"`
	Download struct {
		Jitter Duration `toml:"jitter"` // a download begins so much later, at most
		Rate   Rate     `toml:"rate"`   // 0: no limit
		Hosts  []string `toml:"hosts"`  // where a cache may send us for a NAR, beside itself
	} `toml:"download"`

	Poll struct {
		Wait Duration `toml:"wait"`
	} `toml:"poll"`
	Metrics struct {
		Textfile string `toml:"textfile"`
	} `toml:"metrics"`

	path        string
	unnamed     bool // no host is given
	untargeted  bool // no target is given
	windows     window.Schedule
	keys        []signing.PublicKey
	contentKeys []signing.PublicKey
	serverKeys  []signing.PublicKey
	recovery    []signing.PublicKey
}

// Duration is a time in the file.
type Duration = configfile.Duration

// DriftAction is what a host does that somebody else changed.
type DriftAction string

// A drifted host is left so until the next release, or returns to its entry.
const (
	DriftLeave  DriftAction = "leave"
	DriftReturn DriftAction = "return"
)

// Trust says whose word makes the bytes of a path good.
type Trust string

// Who may be trusted: the promoter's content keys alone, or the server's too.
const (
	TrustPromoter Trust = "promoter"
	TrustServer   Trust = "server"
)

// Check is a health check: exactly one of Command, HTTP and TCP.
type Check struct {
	Name    string        `toml:"name"`
	Mode    api.CheckMode `toml:"mode"`    // enforce if empty
	Command []string      `toml:"command"` // exit status 0 is good
	HTTP    string        `toml:"http"`    // a URL; a status from 200 to 399 is good
	TCP     string        `toml:"tcp"`     // host:port
	Timeout Duration      `toml:"timeout"` // 10 s if zero
}

// Default is what a file that says nothing means.
func Default() *Config {
	c := &Config{
		Threshold: 1, Trust: TrustPromoter, Foreign: nixos.ForeignSigned, HealthD: api.Enforce,
		StateDir: "/nix/var/narwharf", StoreDir: "/nix/store", NixState: "/nix/var/nix",
		Profile: "/nix/var/nix/profiles/system", RunDir: "/run", MinFree: 256 << 20,
	}
	c.Probation.Minimum = Duration(10 * time.Second)
	c.Probation.Settle = Duration(10 * time.Second)
	c.Probation.ConfirmTimeout = Duration(120 * time.Second)
	c.Probation.Interval = Duration(time.Second)
	c.Activation.Timeout = Duration(15 * time.Minute)
	c.Activation.Auto = signing.Auto
	c.Reboot.Allow = desired.RebootServer
	c.Directives.Obey, c.Directives.Retries = desired.ObeyLimited, 2
	c.Drift.Action, c.Drift.Grace = DriftLeave, Duration(15*time.Minute)
	c.Hooks.Timeout = Duration(5 * time.Minute)
	c.Poll.Wait = Duration(45 * time.Second)
	return c
}

// Load reads and checks a configuration. An unknown key is an error
// with its line; nothing is guessed. No file that it names is opened.
func Load(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.path = path
	if err := configfile.Load(path, c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// TrustedContent are the content keys, whose signatures make a path good.
func (c *Config) TrustedContent() []signing.PublicKey { return c.contentKeys }

// TrustedDownloads are the keys of which Nix wants a signature of what it fetches, nil if
// nix_options tell it otherwise.
func (c *Config) TrustedDownloads() []signing.PublicKey {
	if slices.ContainsFunc(c.NixOptions, func(o string) bool { return strings.Contains(o, "sigs") || strings.Contains(o, "public-keys") }) {
		return nil
	}
	if c.Trust == TrustServer {
		return slices.Concat(c.contentKeys, c.serverKeys)
	}
	return c.contentKeys
}

// Path is the file's.
func (c *Config) Path() string { return c.path }

var checkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._:-]{0,62}$`)

func (c *Config) check() error {
	if len(c.Servers) == 0 {
		return errors.New(`server is missing: server = ["https://cache.example.org"]`)
	}
	c.unnamed, c.untargeted = c.Host == "", c.Target == ""
	if c.unnamed {
		name, err := os.Hostname()
		if err != nil || name == "" {
			return fmt.Errorf("host is not given and the machine has no name (%w)", err)
		}
		c.Host, _, _ = strings.Cut(name, ".")
	}
	c.Target, c.System = cmp.Or(c.Target, c.Host), cmp.Or(c.System, ownSystem())
	if err := signing.CheckTarget(c.Target); err != nil || c.Target == signing.Everyone {
		return fmt.Errorf("target: %q is not a name that one host can have (set target)", c.Target)
	}
	if err := signing.CheckTarget(c.Host); err != nil || c.Host == signing.Everyone {
		return fmt.Errorf("host: %q is not a host name (set host)", c.Host)
	}
	if err := signing.CheckChannel(c.Channel); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	if c.Origin == "" {
		return errors.New("origin is missing: the releases of the channel name it, as cache.example.org/prod")
	}
	return cmp.Or(c.checkIdentity(), c.checkKeys(), c.checkPaths(), c.checkActions(), c.checkChecks())
}

// checkIdentity checks the section [identity].
func (c *Config) checkIdentity() error {
	i := &c.Identity
	if err := i.Check(); err != nil {
		return fmt.Errorf("identity.%w", err)
	}
	if i.Kind != "" && (c.TokenFile != "" || c.JoinTokenFile != "") {
		return errors.New("identity and token_file, or join_token_file, are two answers to who the host is: leave one out")
	}
	if i.Kind == proof.SSH && i.SSHKey == "" {
		i.SSHKey = identity.DefaultKey
	}
	configfile.Abs(c.path, &i.SSHKey, &i.File)
	return nil
}

// Asks is the host name that a host with an identity asks for, "" if the server says which it is.
func (c *Config) Asks() string {
	if c.unnamed && c.Identity.Kind != proof.SSH {
		return ""
	}
	return c.Host
}

// As is the configuration of the host that has a name by its identity.
func (c *Config) As(host string) *Config {
	as := *c
	as.Host = host
	if c.untargeted {
		as.Target = host
	}
	return &as
}

// oneOf refuses a value that is none of a list's.
func oneOf[T ~string](key string, value T, list ...T) error {
	switch {
	case slices.Contains(list, value):
		return nil
	case len(list) == 2:
		return fmt.Errorf("%s: %q is neither %s nor %s", key, value, list[0], list[1])
	}
	return fmt.Errorf("%s: %q is none of %s", key, value, strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ", "), "[]"))
}

func (c *Config) checkKeys() (err error) {
	parse := func(name string, texts []string, read func(string) (signing.PublicKey, error)) (keys []signing.PublicKey) {
		for _, t := range texts {
			k, e := read(t)
			if e != nil && err == nil {
				err = fmt.Errorf("%s: %w", name, e)
			}
			keys = append(keys, k)
		}
		return keys
	}
	c.keys = parse("keys", c.Keys, signing.ParsePromoterKey)
	c.recovery = parse("recovery_keys", c.RecoveryKeys, signing.ParsePromoterKey)
	c.contentKeys = parse("content_keys", c.ContentKeys, signing.ParsePublicKey)
	c.serverKeys = parse("server_keys", c.ServerKeys, signing.ParsePublicKey)
	switch {
	case err != nil:
		return err
	case len(c.Keys) == 0:
		return errors.New("keys is empty: name the public keys of those who may promote")
	case slices.ContainsFunc(c.recovery, func(k signing.PublicKey) bool { return slices.ContainsFunc(c.keys, k.Same) }):
		return errors.New("recovery_keys has a key that keys has: a recovery key signs no releases and lies offline")
	case c.KeysVersion < 0 || c.KeysVersion > signing.MaxSeq:
		return fmt.Errorf("keys_version: %d is not between 0 and 2^53-1", c.KeysVersion)
	case c.Threshold < 1 || c.Threshold > len(c.Keys):
		return fmt.Errorf("threshold: %d of %d keys cannot be", c.Threshold, len(c.Keys))
	case c.Trust == TrustPromoter && len(c.ContentKeys) == 0:
		return errors.New("content_keys is empty: with trust = \"promoter\" paths need a signature by one, such as CI's and cache.nixos.org's")
	case c.Trust == TrustPromoter && len(c.ServerKeys) > 0:
		return errors.New("server_keys are not believed with trust = \"promoter\": take them out, or set trust = \"server\"")
	case c.Trust == TrustServer && len(c.ServerKeys)+len(c.ContentKeys) == 0:
		return errors.New("server_keys is empty")
	case c.MinSeq < 0 || c.MinSeq > signing.MaxSeq:
		return fmt.Errorf("min_seq: %d is not between 0 and 2^53-1", c.MinSeq)
	}
	return cmp.Or(oneOf("trust", c.Trust, TrustPromoter, TrustServer), oneOf("foreign_paths", c.Foreign, nixos.ForeignSigned, nixos.ForeignExact))
}

func (c *Config) checkPaths() error {
	configfile.Abs(c.path, &c.StateDir, &c.Profile, &c.RunDir, &c.NixState, &c.TokenFile, &c.JoinTokenFile, &c.CacheTokenFile, &c.CAFile, &c.CertFile, &c.KeyFile, &c.StoreRoot, &c.Metrics.Textfile)
	if d := c.StoreDir; !filepath.IsAbs(d) || filepath.Clean(d) != d {
		return fmt.Errorf("store_dir: %q is not an absolute path like /nix/store, without a slash at its end", d)
	}
	if strings.ContainsAny(c.StateDir, "%\"'\\ \n$") {
		return fmt.Errorf("state_dir: %q holds a character that systemd would take for its own", c.StateDir)
	}
	if c.MinFree < 0 {
		return fmt.Errorf("min_free: %d is below 0", c.MinFree)
	}
	if _, err := relay.ParseCache(c.CacheURL); c.CacheURL != "" && err != nil {
		return fmt.Errorf("cache_url: %w", err)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		return errors.New("cert_file and key_file belong together: give both, or none")
	}
	if c.CacheURL == "" && c.CacheTokenFile != "" {
		return errors.New("cache_token_file: there is no cache_url that it could be for")
	}
	if err := relay.CheckHosts(c.Download.Hosts); err != nil {
		return fmt.Errorf("download.hosts: %w", err)
	}
	return nil
}

func (c *Config) checkActions() error {
	if o := c.Directives.Obey; o != desired.ObeyLimited && o != desired.ObeyNever || c.Directives.Retries < 0 {
		return fmt.Errorf("directives: obey is limited or never, not %q, and retries 0 or more, not %d", o, c.Directives.Retries)
	}
	var err error
	if c.windows, err = window.NewSchedule(c.Reboot.Windows); err != nil {
		return fmt.Errorf("reboot.windows: %w", err)
	}
	if name := c.Activation.Specialisation; name != "" && (strings.ContainsAny(name, "/ \n") || name[0] == '.') {
		return fmt.Errorf("activation.specialisation: %q is no name of one", name)
	}
	for _, name := range []effect.HookName{effect.HookPreSwitch, effect.HookPostSwitch, effect.HookPreReboot} {
		if argv := c.Hook(name); len(argv) > 0 && argv[0] == "" {
			return fmt.Errorf("hooks.%s: give a program and its arguments", name)
		}
	}
	if c.Hooks.Timeout == 0 {
		return errors.New("hooks.timeout must not be 0")
	}
	return cmp.Or(
		oneOf("reboot.allow", c.Reboot.Allow, desired.RebootServer, desired.RebootAlways, desired.RebootNever),
		oneOf("drift.action", c.Drift.Action, DriftLeave, DriftReturn),
		oneOf("activation.auto", c.Activation.Auto, signing.Auto, signing.Switch, signing.Boot),
		oneOf("health_d", c.HealthD, modes...))
}

// Hook is the command line of a hook, nil if there is none.
func (c *Config) Hook(name effect.HookName) []string {
	switch name {
	case effect.HookPreSwitch:
		return c.Hooks.PreSwitch
	case effect.HookPostSwitch:
		return c.Hooks.PostSwitch
	}
	return c.Hooks.PreReboot
}

func (c *Config) checkChecks() error {
	if time.Duration(c.Probation.ConfirmTimeout) < time.Second {
		return errors.New("probation.confirm_timeout: less than a second would revert at every hiccup")
	}
	if c.Probation.Interval == 0 || c.Activation.Timeout == 0 || c.Poll.Wait == 0 {
		return errors.New("probation.interval, activation.timeout and poll.wait must not be 0")
	}
	for _, p := range c.Probation.IgnoreUnits {
		if _, err := path.Match(p, ""); err != nil || !strings.ContainsAny(p, ".*") {
			return fmt.Errorf(`probation.ignore_units: %q is no pattern of unit names: write it as "backup.service" or "backup-*.service"`, p)
		}
	}
	var names []string
	for i := range c.Checks {
		k := &c.Checks[i]
		if !checkName.MatchString(k.Name) || slices.Contains(names, k.Name) {
			return fmt.Errorf("check %d: name %q is missing, malformed or there twice", i+1, k.Name)
		}
		if err := k.check(); err != nil {
			return fmt.Errorf("check %s: %w", k.Name, err)
		}
		names = append(names, k.Name)
	}
	for _, w := range c.Witnesses {
		if _, _, err := witness.Parse(w); err != nil {
			return fmt.Errorf("witnesses: %w", err)
		}
	}
	return nil
}

var modes = []api.CheckMode{api.Enforce, api.Observe, api.Off}

func (k *Check) check() error {
	k.Mode, k.Timeout = cmp.Or(k.Mode, api.Enforce), cmp.Or(k.Timeout, Duration(10*time.Second))
	given := 0
	for _, one := range []string{strings.Join(k.Command, " "), k.HTTP, k.TCP} {
		given += min(len(one), 1)
	}
	switch u, err := url.Parse(k.HTTP); {
	case given != 1:
		return errors.New("give exactly one of command, http and tcp")
	case k.HTTP != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https")):
		return fmt.Errorf("%q is not an HTTP URL", k.HTTP)
	}
	return oneOf("mode", k.Mode, modes...)
}

// Rules are the parts of the configuration that the state machine goes by.
func (c *Config) Rules() machine.Rules {
	return machine.Rules{
		Rules: desired.Rules{
			Trust:    signing.Trust{Keys: c.keys, Threshold: c.Threshold, Origin: c.Origin, Channel: c.Channel, Target: c.Target},
			System:   c.System,
			StoreDir: c.StoreDir,
			MinSeq:   c.MinSeq,

			KeysVersion: c.KeysVersion,
			Recovery:    c.recovery,
			Fresh:       time.Duration(c.RequireFresh),

			Reboot:  c.Reboot.Allow,
			Windows: c.windows,

			Directives: c.Directives.Obey,
			Retries:    c.Directives.Retries,

			Minimum:        time.Duration(c.Probation.Minimum),
			ConfirmTimeout: time.Duration(c.Probation.ConfirmTimeout),
		},
		Auto: c.Activation.Auto,

		Specialisation: c.Activation.Specialisation,
		Drift:          c.driftAfter(),

		Probation:    probation.Rules{Settle: time.Duration(c.Probation.Settle), IgnoreUnits: c.Probation.IgnoreUnits},
		Interval:     time.Duration(c.Probation.Interval),
		CheckTime:    c.checkTime(),
		Hooks:        map[effect.HookName]bool{effect.HookPreSwitch: len(c.Hooks.PreSwitch) > 0, effect.HookPostSwitch: len(c.Hooks.PostSwitch) > 0, effect.HookPreReboot: len(c.Hooks.PreReboot) > 0},
		TestDeadline: time.Duration(c.Test.Deadline),
		Jitter:       time.Duration(c.Download.Jitter),
	}
}

// driftAfter is after how long a drifted host goes back, 0 if it does not.
func (c *Config) driftAfter() time.Duration {
	if c.Drift.Action == DriftLeave {
		return 0
	}
	return max(time.Duration(c.Drift.Grace), time.Millisecond)
}

// checkTime is how long one round of all checks may take.
func (c *Config) checkTime() time.Duration {
	d := 30 * time.Second // health.d
	for _, k := range c.Checks {
		d += time.Duration(k.Timeout)
	}
	return d
}

// ReadableSecrets are the files with tokens and keys that every user of this host can read.
func (c *Config) ReadableSecrets() (names []string) {
	for _, name := range []string{c.TokenFile, c.JoinTokenFile, c.CacheTokenFile, c.KeyFile} {
		if readable, err := configfile.Readable(name); err == nil && readable {
			names = append(names, name)
		}
	}
	return names
}
