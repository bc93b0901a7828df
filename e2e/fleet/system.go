package fleet

// A System is what nixos/toplevel.nix makes a NixOS-like system of. The zero value is a whole one:
// it runs hello.service (which writes Version to /run/hello), an HTTP answer on port 8000 that says
// the same, network.service, and no agent.
type System struct {
	Name         string            `json:"name,omitempty"`    // of the store path: nixos-system-<name>-<version>
	Version      string            `json:"version,omitempty"` // another one replaces three of 18 paths
	Kernel       string            `json:"kernel,omitempty"`  // "6.1"; another one needs a reboot
	KernelParams string            `json:"kernelParams,omitempty"`
	Agent        string            `json:"agent,omitempty"`         // store path with bin/narwharf ([CI.Agent]), or AgentStub
	AgentConfig  string            `json:"agentConfig,omitempty"`   // text of /etc/narwharf/agent.toml
	AgentService string            `json:"agentService,omitempty"`  // lines added to [Service] of narwharf.service
	AgentRestart bool              `json:"agentRestarts,omitempty"` // a switch may restart the agent: the mistake to survive
	Units        map[string]string `json:"units,omitempty"`         // "x.service" = text; multi-user.target wants them
	Etc          map[string]string `json:"etc,omitempty"`           // more files of /etc
	Health       map[string]string `json:"health,omitempty"`        // more files of etc/narwharf/health.d, beside "hello"
	Inhibitors   map[string]string `json:"inhibitors,omitempty"`    // of switch-inhibitors; other values allow only `boot`
	Snippet      string            `json:"snippet,omitempty"`       // shell, added to the activation script
	Bulk         int               `json:"bulk,omitempty"`          // KiB in a path of its own that do not compress, others in each version
	Seconds      int               `json:"seconds,omitempty"`       // for slow and fails-later; default 30
	Misbehave    []Misbehaviour    `json:"misbehave,omitempty"`

	Specialisations map[string]System `json:"specialisations,omitempty"`
}

// AgentStub is an agent that only says that it runs.
const AgentStub = "stub"

// A Misbehaviour is a way in which a system goes wrong. The comment is what
// switch-to-configuration ends with.
type Misbehaviour string

// What toplevel.nix can do wrong.
const (
	ActivationFails Misbehaviour = "activation-fails" // 2
	UnitFails       Misbehaviour = "unit-fails"       // 4: a new unit fails at once
	FailsLater      Misbehaviour = "fails-later"      // 0: a new unit fails after Seconds
	Slow            Misbehaviour = "slow"             // 0: a unit takes Seconds to start
	SlowActivation  Misbehaviour = "slow-activation"  // 0: the activation script takes Seconds
	Hang            Misbehaviour = "hang"             // never ends
	Dies            Misbehaviour = "dies"             // killed in the activation script, with units stopped; the first time in a boot
	LogindAway      Misbehaviour = "logind-away"      // 11: logind goes away for Seconds, with units stopped
	KillAgent       Misbehaviour = "kill-agent"       // 0: narwharf.service is killed in the middle
	NetworkDown     Misbehaviour = "network-down"     // 0: eth0 is down
	NetworkRoute    Misbehaviour = "network-route"    // 0: only the server cannot be reached, the gateway can
	NetworkSilent   Misbehaviour = "network-silent"   // 0: eth0 is up with a wrong address
	Unhealthy       Misbehaviour = "unhealthy"        // 0: hello answers 500, its health check fails
	BootFull        Misbehaviour = "boot-full"        // 1 for switch and boot: /boot is too small for the kernel
	BootSilent      Misbehaviour = "boot-silent"      // 0: the boot entry is not written
	CheckFails      Misbehaviour = "check-fails"      // 1: the pre-switch check fails
	InitInterface   Misbehaviour = "init-interface"   // 100 for switch and test
)
