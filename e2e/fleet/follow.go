package fleet

import (
	"fmt"
	"strings"
)

const deployKey = "deploy-1" // signs releases; the hosts' agents know it

// following is what a fleet with [Options.Follow] has.
type following struct {
	channel string
	agent   string // store path of the narwharf under test
}

// setUpChannel gives CI what it needs to promote the channel.
func (f *Fleet) setUpChannel(channel string) {
	f.T.Helper()
	ci := f.CI()
	ci.NewKey(deployKey)
	ci.Token(f.Server().Token("deploy", "push", "promote:"+channel, "operate"))
	f.follow = following{channel: channel, agent: ci.Agent()}
}

// hostToken is what a host of the channel is known by.
func (f *Fleet) hostToken(name string) string {
	f.T.Helper()
	return f.Server().Token(name, "follow:"+f.follow.channel)
}

// AgentConfig is an agent.toml for the fleet's channel, with times that suit a test. More lines are
// put in front, so that they may be top-level keys; a table in them has to be complete.
func (f *Fleet) AgentConfig(more ...string) string {
	f.T.Helper()
	lines := append(more,
		fmt.Sprintf("server = [%q]", f.Server().URL()),
		fmt.Sprintf("origin = %q", serverName+"/"+f.follow.channel),
		fmt.Sprintf("channel = %q", f.follow.channel),
		fmt.Sprintf("keys = [%q]", f.Key(deployKey)),
		fmt.Sprintf("content_keys = [%q]", f.Key(ciKey)),
		`token_file = "/var/lib/narwharf/token"`,
		"[probation]", `minimum = "1s"`, `settle = "2s"`, `confirm_timeout = "5s"`, `interval = "200ms"`)
	return strings.Join(lines, "\n") + "\n"
}

// System is a system of the fleet's channel: with the narwharf under test as its agent, configured
// by [Fleet.AgentConfig].
func (f *Fleet) System(version string, misbehave ...Misbehaviour) System {
	f.T.Helper()
	if f.follow.channel == "" {
		f.T.Fatal("this fleet follows no channel: Options.Follow")
	}
	return System{Version: version, Agent: f.follow.agent, AgentConfig: f.AgentConfig(), Misbehave: misbehave}
}

// Promote promotes the fleet's channel: arguments as for `narwharf promote CHANNEL`.
func (c *CI) Promote(args ...string) Output {
	c.T.Helper()
	return c.Narwharf(append([]string{"promote", c.f.follow.channel, "--key", c.SecretKey(deployKey)}, args...)...)
}
