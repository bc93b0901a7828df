// Package narwharf_test holds what is true of the module as a whole: which
// package may import which, how long a file may be, and that each dependency
// has its reason written down.
package narwharf_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "narwharf"

// mayImport is what each package may import of this module. A name that ends in
// /... stands for all packages below, too.
var mayImport = map[string][]string{
	"":                           {"cache/nar/dump"},
	"bench":                      {"bench/load", "cache/index", "cache/nar", "cache/state/bolt", "hooks/api", "narinfo", "signing"},
	"bench/load":                 nil,
	"cache":                      {"cache/...", "narinfo", "signing", "signing/access", "signing/access/scope"},
	"cache/blob":                 {"cache/state/durable"},
	"cache/copies":               {"cache/blob", "cache/local/encoder", "cache/narfile", "narinfo", "signing"},
	"cache/copies/backup":        {"cache/state/durable", "narinfo"},
	"cache/copies/remote":        {"cache/copies", "narinfo"},
	"cache/fastpath":             nil,
	"cache/index":                {"narinfo", "cache/state"},
	"cache/index/collect":        {"cache/index", "cache/root", "narinfo"},
	"cache/limits":               nil,
	"cache/local":                {"cache/nar", "cache/nar/dump", "cache/blob", "cache/nixstore", "cache/nixstore/realised", "cache/local/compress", "cache/local/encoder", "cache/refusal", "narinfo"},
	"cache/local/compress":       {"cache/blob", "cache/local/encoder", "cache/state/durable", "narinfo"},
	"cache/local/encoder":        {"narinfo"},
	"cache/nar":                  nil,
	"cache/nar/dump":             {"cache/nar"},
	"cache/narfile":              {"cache/nar", "cache/blob", "cache/refusal", "narinfo"},
	"cache/narfiletest":          nil,
	"cache/refusal":              nil,
	"cache/root":                 {"narinfo", "cache/state"},
	"cache/reply":                {"cache/blob", "cache/fastpath", "cache/refusal"},
	"cache/signed":               {"cache/fastpath", "cache/index", "cache/local", "cache/refusal", "narinfo", "signing"},
	"cache/stored":               {"cache/nar", "cache/limits", "cache/narfile", "cache/blob", "cache/index", "cache/local", "cache/local/encoder", "cache/refusal", "cache/retention", "cache/sidecar", "cache/signed", "cache/upload", "cache/upload/adopt", "cache/upload/recovery", "cache/upstream", "cache/local/compress", "cache/state", "cache/state/namelock", "narinfo"},
	"cache/retention":            {"cache/index", "cache/retention/graph", "cache/root", "cache/sidecar", "cache/state", "cache/upload", "narinfo"},
	"cache/retention/graph":      {"cache/index", "narinfo"},
	"cache/sidecar":              {"cache/narfile", "cache/blob", "cache/refusal", "cache/state/namelock", "narinfo", "signing"},
	"cache/nixstore":             {"cache/nixstore/...", "narinfo"},
	"cache/nixstore/realised":    {"narinfo"},
	"cache/nixstore/daemon":      {"narinfo"},
	"cache/state":                nil,
	"cache/state/admin":          nil,
	"cache/state/bolt":           {"cache/state"},
	"cache/state/durable":        nil,
	"cache/state/memory":         {"cache/state"},
	"cache/state/postgres":       {"cache/state"},
	"cache/state/progress":       nil,
	"cache/state/namelock":       nil,
	"cache/state/statetest":      {"cache/state"},
	"cache/upload":               {"cache/nar", "cache/narfile", "cache/blob", "cache/index", "cache/index/collect", "cache/refusal", "cache/state", "cache/state/namelock", "cache/upload/received", "narinfo"},
	"cache/upstream/breaker":     nil,
	"cache/upstream":             {"signing/access/address", "cache/upstream/breaker", "cache/nar", "cache/narfile", "cache/local/compress", "cache/local/encoder", "cache/refusal", "cache/state", "narinfo", "signing"},
	"cache/upload/fsck":          {"cache/nar", "cache/narfile", "cache/blob", "cache/index", "cache/refusal", "cache/upload", "narinfo"},
	"cache/upload/adopt":         {"cache/nar", "cache/nar/dump", "cache/narfile", "cache/blob", "cache/index", "cache/refusal", "cache/upload", "narinfo"},
	"cache/upload/received":      {"cache/narfile"},
	"cache/upload/scrub":         {"cache/index", "cache/state", "cache/upload", "narinfo"},
	"cache/upload/recovery":      {"cache/narfile", "cache/blob", "cache/index", "cache/state", "cache/upload", "narinfo"},
	"cmd/narwharf":               {"..."},
	"cmd/narwharf/data":          {"cache/copies", "cache/copies/...", "cache/narfile", "cache/refusal", "cmd/narwharf/command", "cmd/narwharf/server", "cmd/narwharf/terminal", "hooks/api", "hooks/serverconfig", "narinfo", "signing"},
	"cmd/narwharf/access":        {"cmd/narwharf/command", "cmd/narwharf/data", "cmd/narwharf/server/token", "cmd/narwharf/terminal", "hooks/api", "hooks/audit", "narinfo/clip", "hooks/api/login", "hooks/configfile", "hooks/login", "hooks/login/netrc", "cmd/narwharf/server", "hooks/serverconfig", "signing/access/oidc"},
	"cmd/narwharf/agent":         {"cmd/narwharf/command", "cmd/narwharf/terminal", "hooks/api", "hooks/configfile", "nixos", "nixos/config", "nixos/journal", "nixos/linux", "nixos/linux/systemd", "nixos/remote"},
	"cmd/narwharf/command":       {"cmd/narwharf/terminal", "hooks/api", "hooks/configfile", "hooks/api/trust", "hooks/login/netrc"},
	"cmd/narwharf/keys":          {"cmd/narwharf/command", "cmd/narwharf/terminal", "hooks/api", "hooks/configfile", "hooks/promoter", "signing", "signing/external", "signing/keyring", "hooks/promoter/rotation", "cache/nixstore"},
	"cmd/narwharf/channel":       {"cmd/narwharf/command", "cmd/narwharf/keys", "cmd/narwharf/promote", "cmd/narwharf/terminal", "hooks/api", "hooks/api/policy"},
	"cmd/narwharf/telling":       {"cmd/narwharf/command", "cmd/narwharf/terminal", "hooks/api", "hooks/api/alarm", "hooks/api/notify"},
	"cmd/narwharf/summary":       {"cmd/narwharf/terminal", "hooks/api", "hooks/api/plan", "hooks/api/retention", "hooks/promoter/follow", "hooks/rollout"},
	"cmd/narwharf/promote":       {"cmd/narwharf/command", "cmd/narwharf/keys", "cmd/narwharf/summary", "cmd/narwharf/terminal", "hooks/api", "hooks/api/rollouts", "hooks/configfile", "hooks/promoter", "hooks/promoter/follow", "hooks/promoter/rotation", "hooks/rollout", "signing"},
	"cmd/narwharf/retention":     {"cmd/narwharf/command", "cmd/narwharf/terminal", "hooks/api", "hooks/api/retention"},
	"cmd/narwharf/server":        {"hooks/notify", "cmd/narwharf/server/...", "cache", "cache/...", "hooks", "hooks/api", "hooks/api/retention", "hooks/audit", "hooks/reply", "hooks/rollout/check", "hooks/serverconfig", "narinfo", "nixos/bootstrap", "nixos/config", "signing", "signing/access", "signing/access/...", "signing/browser", "hooks/api/login", "hooks/dashboard", "hooks/exchange", "hooks/identity", "hooks/intake"},
	"cmd/narwharf/terminal":      {"hooks/api"},
	"e2e":                        nil,
	"e2e/fleet":                  {"e2e"},
	"e2e/fleet/cmd":              {"e2e/fleet"},
	"e2e/fleet/vm":               {"e2e/fleet"},
	"hooks":                      {"hooks/...", "narinfo", "signing", "signing/access", "signing/access/scope", "signing/access/session", "signing/access/shortlived", "cache/limits", "cache/state", "cache/state/mirror"},
	"cache/state/mirror":         {"cache/state", "cache/state/namelock"},
	"hooks/call":                 {"hooks/audit", "hooks/host", "hooks/longpoll", "hooks/reply", "hooks/rights", "signing/access", "signing/access/scope", "cache/limits"},
	"hooks/call/credentials":     {"hooks/api", "hooks/api/login", "hooks/api/proof", "hooks/audit", "hooks/call", "hooks/channel", "hooks/exchange", "hooks/host", "hooks/identity", "hooks/intake", "hooks/longpoll", "hooks/reply", "hooks/sessions", "signing/access", "signing/access/session", "signing/access/shortlived", "cache/limits"},
	"hooks/call/telling":         {"hooks/alarm", "hooks/api", "hooks/api/alarm", "hooks/call", "hooks/notify", "signing"},
	"hooks/alarm":                {"hooks/api", "hooks/api/alarm", "hooks/audit", "cache/state", "cache/state/mirror"},
	"hooks/notify":               {"hooks/api", "hooks/api/notify", "hooks/audit", "cache/state", "cache/state/mirror", "signing/access/address"},
	"hooks/api/alarm":            {"hooks/api"},
	"hooks/api/notify":           {"hooks/api"},
	"hooks/call/gate":            {"hooks/api", "hooks/api/gate", "hooks/call", "hooks/fleetlock", "hooks/policy", "hooks/reboot", "hooks/rollout/check", "signing/access/scope"},
	"hooks/fleetlock":            {"hooks/api", "hooks/host", "hooks/policy", "hooks/reboot", "cache/state", "cache/state/mirror"},
	"hooks/rollout/check":        {"hooks/rollout"},
	"hooks/call/retention":       {"hooks/api", "hooks/api/retention", "hooks/call", "hooks/channel", "hooks/retain", "narinfo"},
	"hooks/audit":                {"hooks/api", "signing", "cache/state", "cache/state/mirror"},
	"hooks/policy":               {"hooks/api", "hooks/api/policy", "hooks/audit", "hooks/window", "signing", "cache/state/mirror"},
	"hooks/timers":               nil,
	"hooks/api":                  {"hooks/api/credential", "hooks/api/plan", "hooks/api/transport", "signing", "narinfo", "hooks/api/trust", "hooks/api/proof"},
	"hooks/api/plan":             nil,
	"hooks/plan":                 {"hooks/api", "hooks/api/plan", "hooks/reboot/cause", "hooks/rollout", "hooks/rollout/policy", "hooks/rollout/roster", "narinfo", "signing"},
	"hooks/reboot/cause":         nil,
	"hooks/call/rollouts":        {"hooks/api", "hooks/api/plan", "hooks/api/rollouts", "hooks/call", "hooks/channel", "hooks/closure", "hooks/desired", "hooks/longpoll", "hooks/plan", "hooks/policy", "hooks/rollout", "hooks/rollout/driver", "hooks/rollout/release", "signing", "signing/access/scope"},
	"hooks/api/rollouts":         {"hooks/api", "hooks/rollout"},
	"hooks/api/policy":           {"hooks/api", "hooks/rollout/policy", "hooks/window"},
	"hooks/api/transport":        {"hooks/api/credential", "hooks/api/trust"},
	"hooks/api/trust":            nil,
	"hooks/closure":              {"hooks/api", "signing", "narinfo"},
	"hooks/api/credential":       nil,
	"hooks/api/retention":        {"hooks/api"},
	"hooks/api/gate":             {"hooks/api"},
	"cmd/narwharf/gate":          {"cmd/narwharf/command", "cmd/narwharf/terminal", "hooks/api", "hooks/api/gate"},
	"hooks/channel":              {"hooks/api", "hooks/audit", "hooks/closure", "signing", "narinfo", "cache/root", "cache/state", "cache/state/mirror", "cache/state/namelock"},
	"hooks/configfile":           nil,
	"hooks/dashboard":            {"hooks/api", "hooks/api/login", "hooks/sessions", "hooks/audit", "hooks/reply", "narinfo/clip", "signing/access", "signing/access/session", "signing/access/shortlived", "signing/browser", "signing/access/scope"},
	"hooks/desired":              {"hooks/api", "hooks/audit", "hooks/channel", "hooks/host", "hooks/host/presence", "hooks/longpoll", "hooks/policy", "hooks/reboot", "hooks/rollout", "hooks/rollout/driver", "hooks/timers", "narinfo", "signing", "signing/access", "cache/root", "cache/state", "cache/state/mirror", "hooks/keys", "hooks/intake"},
	"hooks/host/presence":        nil,
	"hooks/sessions":             {"hooks/api", "hooks/api/login", "hooks/audit", "narinfo/clip", "signing/access", "signing/access/scope", "signing/access/session", "signing/access/shortlived"},
	"hooks/exchange":             {"hooks/api", "hooks/api/login", "hooks/audit", "signing/access", "signing/access/oidc", "signing/access/shortlived", "cache/state/mirror"},
	"hooks/host":                 {"hooks/host/presence", "hooks/api", "hooks/audit", "narinfo", "signing", "signing/access", "cache/root", "cache/state", "cache/state/mirror", "hooks/intake", "signing/access/scope", "signing/access/shortlived"},
	"hooks/intake":               {"hooks/api", "signing"},
	"hooks/longpoll":             nil,
	"hooks/promoter/follow":      {"hooks/api", "hooks/api/rollouts", "hooks/rollout"},
	"hooks/promoter":             {"hooks/api", "hooks/api/retention", "hooks/promoter/follow", "signing", "narinfo", "cache/nixstore", "cache/state/durable", "signing/keyring"},
	"hooks/retain":               {"hooks/api", "hooks/api/retention", "hooks/audit", "hooks/channel", "hooks/closure", "hooks/host", "narinfo", "cache/root", "cache/state", "cache/state/mirror"},
	"hooks/reboot":               {"hooks/api", "hooks/audit", "hooks/host", "signing", "cache/state", "cache/state/mirror"},
	"hooks/reply":                {"hooks/api", "hooks/longpoll", "cache/limits", "signing/access"},
	"hooks/rights":               {"hooks/api", "signing", "signing/access", "signing/access/scope", "hooks/intake"},
	"hooks/serverconfig":         {"hooks/notify", "hooks/api", "hooks/rollout/check", "hooks/configfile", "signing", "signing/external", "signing/access/rule", "signing/access/scope", "signing/access/certificate", "signing/access/awsiam", "signing/access/hostkey"},
	"hooks/window":               nil,
	"narinfo":                    nil,
	"narinfo/clip":               nil,
	"nixos":                      {"nixos/desired", "nixos/effect", "nixos/journal", "nixos/machine", "signing", "narinfo", "hooks/api"},
	"nixos/bootstrap":            {"nixos/config", "hooks/api", "narinfo", "signing", "signing/access", "hooks/api/trust", "nixos/identity", "hooks/api/proof"},
	"nixos/config":               {"nixos", "nixos/desired", "nixos/effect", "nixos/machine", "nixos/probation", "nixos/linux/witness", "nixos/relay", "hooks/api", "hooks/configfile", "hooks/window", "signing", "nixos/identity", "hooks/api/proof"},
	"nixos/desired":              {"nixos/effect", "nixos/journal", "signing", "hooks/api", "hooks/window", "signing/keyring"},
	"nixos/effect":               {"nixos/journal", "signing", "narinfo", "hooks/api"},
	"nixos/identity":             {"hooks/api", "signing/access/awsiam", "signing/access/hostkey", "hooks/api/proof"},
	"nixos/journal":              {"signing", "narinfo", "hooks/api", "cache/state/durable"},
	"nixos/linux":                {"hooks/reboot/cause", "nixos", "nixos/config", "nixos/effect", "nixos/journal", "nixos/machine", "nixos/linux/...", "nixos/remote", "hooks/api", "narinfo/clip", "cache/state/durable", "hooks/api/trust"},
	"nixos/linux/sys":            nil,
	"nixos/linux/nix":            {"nixos", "nixos/config", "nixos/linux/sys", "nixos/relay", "cache/nixstore", "hooks/api", "narinfo", "signing", "cache/state/durable"},
	"nixos/linux/systemd":        {"nixos", "nixos/effect", "nixos/journal", "nixos/linux/sys", "cache/state/durable"},
	"nixos/linux/witness":        nil,
	"nixos/machine":              {"nixos/desired", "nixos/effect", "nixos/journal", "nixos/probation", "signing", "narinfo", "hooks/api"},
	"nixos/probation":            {"nixos/effect", "nixos/journal", "hooks/api"},
	"nixos/relay":                {"cache/narfile", "cache/refusal", "narinfo", "signing", "signing/access/address"},
	"nixos/tests":                nil,
	"nixos/remote":               {"nixos", "nixos/effect", "hooks/api", "narinfo", "signing"},
	"nixos/sim":                  {"nixos", "nixos/desired", "nixos/effect", "nixos/journal", "nixos/machine", "nixos/probation", "nixos/remote", "signing", "narinfo", "hooks/api"},
	"signing":                    {"narinfo", "signing/curve", "signing/ijson", "signing/merkle"},
	"signing/curve":              {"signing/ijson"},
	"signing/external":           {"signing", "signing/curve"},
	"signing/keyring":            {"signing", "signing/ijson"},
	"signing/merkle":             nil,
	"signing/ijson":              nil,
	"signing/browser":            {"signing/access"},
	"signing/access":             {"signing", "signing/access/scope", "cache/state", "cache/state/durable", "cache/state/mirror"},
	"signing/access/certificate": {"signing/access", "signing/access/rule"},
	"signing/access/session":     {"signing/access", "signing/access/oidc", "signing/access/rule", "signing/access/shortlived"},
	"signing/access/scope":       nil,

	"cmd/narwharf/server/greeting": {"hooks/serverconfig", "signing", "signing/access/scope"},
	"signing/access/awsiam":        {"signing/ijson"},
	"signing/access/challenge":     {"cache/state", "cache/state/mirror"},
	"signing/access/hostkey":       nil,
	"signing/access/address":       nil,
	"signing/access/oidc":          {"signing/access", "signing/access/address", "signing/access/rule"},
	"signing/access/oidc/oidctest": nil,
	"signing/access/rule":          {"signing/access", "signing/access/scope"},
	"signing/access/shortlived":    {"signing/access", "signing/access/scope", "cache/state", "cache/state/mirror"},

	"hooks/api/login":   {"hooks/api"},
	"hooks/login":       {"cache/state/durable", "hooks/api", "hooks/api/login", "hooks/configfile", "hooks/login/netrc", "signing/access"},
	"hooks/login/netrc": {"cache/state/durable"},

	"cmd/narwharf/server/token":   {"cache/state", "cache/state/mirror", "hooks/api", "hooks/audit", "signing", "signing/access", "signing/access/scope", "signing/access/shortlived"},
	"cmd/narwharf/server/keypair": {"signing/access", "signing/access/certificate", "signing/access/rule"},
	"cmd/narwharf/server/issuers": {"hooks/api", "hooks/serverconfig", "signing/access/oidc"},
	"cmd/narwharf/server/place":   {"cache/state", "hooks/serverconfig"},

	"hooks/promoter/rotation": {"hooks/api", "signing", "signing/keyring", "cache/state/durable"},

	"hooks/keys": {"hooks/api", "hooks/audit", "hooks/channel", "signing", "signing/keyring", "cache/state/mirror"},

	"cmd/narwharf/server/collector": {"cache/blob", "cache/retention", "cache/stored", "hooks/api", "hooks/api/retention", "hooks/serverconfig", "narinfo"},
	"cmd/narwharf/server/shutdown":  {"cache", "cmd/narwharf/server/systemd"},
	"cmd/narwharf/server/systemd":   nil,
	"cmd/narwharf/server/firstboot": {"hooks/intake", "hooks/serverconfig", "nixos/bootstrap", "nixos/config", "signing"},

	"hooks/rollout":                     {"hooks/api", "hooks/rollout/policy", "signing"},
	"hooks/rollout/attempt":             {"hooks/api", "hooks/rollout"},
	"hooks/rollout/engine":              {"hooks/rollout", "hooks/rollout/attempt", "hooks/rollout/policy", "hooks/rollout/roster"},
	"hooks/rollout/metrics":             {"hooks/api", "hooks/audit", "hooks/rollout", "cache/state/mirror"},
	"hooks/rollout/policy":              nil,
	"hooks/rollout/rows":                {"hooks/rollout", "cache/state", "cache/state/mirror"},
	"hooks/rollout/release":             {"hooks/rollout", "hooks/api", "hooks/channel", "signing", "cache/state/namelock"},
	"hooks/rollout/show":                {"hooks/rollout", "hooks/rollout/roster", "hooks/api", "narinfo/clip"},
	"hooks/rollout/logbook":             {"hooks/rollout", "hooks/api", "hooks/audit", "cache/state/mirror"},
	"hooks/rollout/lease":               {"hooks/rollout/rows", "cache/state", "cache/state/mirror"},
	"hooks/rollout/limits":              {"hooks/rollout", "hooks/rollout/rows", "hooks/api", "hooks/audit", "cache/state/mirror"},
	"hooks/rollout/driver":              {"hooks/rollout", "hooks/rollout/engine", "hooks/rollout/lease", "hooks/rollout/limits", "hooks/rollout/logbook", "hooks/rollout/policy", "hooks/rollout/release", "hooks/rollout/rows", "hooks/rollout/show", "hooks/api", "hooks/audit", "hooks/channel", "hooks/host", "hooks/host/presence", "hooks/policy", "hooks/reboot", "hooks/timers", "signing", "cache/state", "cache/state/mirror"},
	"hooks/rollout/roster":              {"hooks/api", "hooks/rollout", "hooks/rollout/attempt", "hooks/rollout/policy"},
	"hooks/rollout/simulate":            {"hooks/api", "hooks/rollout", "hooks/rollout/engine", "hooks/rollout/policy", "hooks/rollout/roster", "hooks/window"},
	"cmd/narwharf/rollout":              {"cmd/narwharf/command", "cmd/narwharf/summary", "cmd/narwharf/terminal", "hooks/api", "hooks/api/rollouts", "hooks/promoter/follow", "hooks/rollout", "hooks/rollout/policy", "hooks/rollout/simulate"},
	"hooks/api/proof":                   nil,
	"nixos/linux/join":                  {"hooks/api/proof", "nixos/config", "nixos/identity", "nixos/linux/sys", "nixos/remote", "hooks/api", "hooks/api/credential", "hooks/api/trust", "narinfo/clip", "cache/state/durable"},
	"hooks/identity":                    {"hooks/api/proof", "hooks/api", "hooks/audit", "hooks/host", "signing/access", "signing/access/awsiam", "signing/access/challenge", "signing/access/hostkey", "signing/access/scope", "cache/state/mirror", "signing/access/shortlived"},
	"cache/state/postgres/postgrestest": nil,

	"cmd/narwharf/check":           {"cmd/narwharf/command", "hooks/serverconfig", "nixos/config"},
	"cmd/narwharf/server/machines": {"hooks/identity", "hooks/serverconfig", "signing/access", "signing/access/awsiam", "signing/access/oidc"},

	"cmd/narwharf/client":     {"cmd/narwharf/command", "cmd/narwharf/server", "cmd/narwharf/terminal", "hooks/api/trust", "hooks/configfile", "hooks/doctor", "hooks/doctor/...", "hooks/login/netrc", "hooks/nixconf", "nixos/doctor", "signing"},
	"cmd/narwharf/deploy":     {"cmd/narwharf/command", "hooks/api", "hooks/configfile", "hooks/login/netrc", "signing"},
	"cmd/narwharf/manual":     {"cmd/narwharf/command"},
	"cmd/narwharf/uploadhook": {"cmd/narwharf/command", "cmd/narwharf/terminal", "hooks/api", "hooks/outbox"},
	"hooks/outbox":            {"cache/state/durable", "narinfo"},
	"hooks/doctor":            nil,
	"hooks/doctor/client":     {"hooks/doctor", "hooks/doctor/remote", "hooks/login/netrc", "hooks/nixconf", "narinfo", "signing"},
	"hooks/doctor/remote":     {"cache/probe", "hooks/api", "hooks/api/trust", "hooks/doctor", "narinfo", "signing"},
	"hooks/doctor/server":     {"cache/nixstore", "hooks/api/trust", "hooks/doctor", "hooks/doctor/remote", "hooks/serverconfig", "signing"},
	"nixos/doctor":            {"hooks/api", "hooks/api/login", "hooks/api/trust", "hooks/doctor", "hooks/doctor/remote", "nixos/config", "nixos/journal"},
	"hooks/nixconf":           {"cache/state/durable"},
	"cache/probe":             {"cache/nar", "narinfo"},
}

// allMayImport is what every package may import: tiny leaves.
var allMayImport = []string{"cache/state/progress", "narinfo/clip"}

// testsMayImport is what tests may import beyond that.
var testsMayImport = map[string][]string{
	"signing/access/session": {"signing/access/oidc/oidctest", "signing/access/scope", "cache/state", "cache/state/memory"},
	"hooks/dashboard":        {"signing/access/oidc", "signing/access/oidc/oidctest", "signing/access/rule", "signing/access/scope", "cache/state", "cache/state/mirror", "cache/state/memory"},
	"cmd/narwharf/access":    {"signing/access/oidc/oidctest"},
	"hooks/login":            {"signing/access/oidc/oidctest", "signing/access/scope"},
	"hooks/promoter":         {"hooks", "signing/access", "signing/access/scope", "cache/state/memory"}, // an example with a server
	"cache/index":            {"cache/state/bolt", "cache/state/memory", "cache/state/statetest"},
	"cache/root":             {"cache/state/memory", "cache/state/statetest"},
	"cache/upload":           {"cache/root", "cache/upload/fsck", "cache/upload/recovery", "cache/state/memory", "cache/state/statetest"},
	"cache/stored":           {"cache/root", "cache/state/memory"},
	"cache/retention":        {"cache/blob", "cache/nar", "cache/refusal", "cache/state/bolt", "cache/state/memory", "cache/upload/recovery"},
	"cache/upstream":         {"cache/state/memory"},
	"cache/state/bolt":       {"cache/state/statetest"},
	"cache/state/memory":     {"cache/state/statetest"},
	"cache/state/postgres":   {"cache/state/postgres/postgrestest", "cache/state/statetest"},
	"cache/narfile":          {"cache/narfiletest"},
	"hooks":                  {"nixos", "nixos/effect", "nixos/remote", "nixos/sim", "narinfo", "signing/keyring", "cache/root", "cache/state/bolt", "cache/state/memory", "signing/access/shortlived", "signing/access/awsiam", "signing/access/hostkey"}, // real agents on simulated hosts
	"hooks/audit":            {"cache/state/memory"},
	"hooks/rollout/metrics":  {"cache/state/memory"},
	"hooks/alarm":            {"cache/state/memory"},
	"hooks/notify":           {"cache/state/memory", "hooks/alarm"},
	"hooks/reboot":           {"cache/state/memory"},
	"hooks/retain":           {"cache/state/memory"},
	"cache/state/mirror":     {"cache/state/memory"},
	"nixos":                  {"nixos/sim", "hooks/window", "signing/keyring"},
	"nixos/linux":            {"nixos/sim", "cache/nar", "cache/nar/dump", "narinfo", "signing"},
	"nixos/bootstrap":        {"signing/access/scope"},
	"nixos/tests":            {"hooks/configfile", "hooks/serverconfig", "hooks/window", "nixos/config"}, // modules and program
	"signing/browser":        {"signing/access/scope", "cache/state/memory"},
	"signing/access":         {"cache/state/bolt", "cache/state/memory", "cache/state/statetest"},

	"signing/access/challenge":  {"cache/state/memory"},
	"signing/access/oidc":       {"signing/access/oidc/oidctest"},
	"cmd/narwharf/server/token": {"cache/state/memory"},
	"hooks/exchange":            {"cache/state/memory", "signing/access/rule"},
	"signing/access/shortlived": {"cache/state/bolt", "cache/state/memory", "cache/state/statetest"},

	"e2e":       {"signing/access/oidc/oidctest"},
	"e2e/fleet": {"signing/access/oidc/oidctest"},

	"hooks/rollout/engine": {"hooks/api"},
	"nixos/linux/join":     {"signing"},
}

// onlyIn names the files that alone may import a module, tests left out, so
// that leaving it stays a day's work.
var onlyIn = map[string][]string{
	"github.com/labstack/echo": {"hooks/routes.go"},
	"github.com/spf13/cobra":   {"cmd/narwharf/*.go", "cmd/narwharf/*/*.go"},
	"github.com/pelletier":     {"hooks/configfile/*.go", "nixos/bootstrap/script.go"},
	"go.etcd.io/bbolt":         {"cache/state/bolt/*.go"},
	// Handlers and clients know HTTP; what they call does not.
	"net/http": {"bench/*.go", "cache/*.go", "cache/copies/remote/*.go", "cache/fastpath/*.go", "cache/limits/*.go", "cache/reply/*.go", "cache/state/admin/*.go", "cache/upstream/*.go", "cmd/narwharf/server/*.go", "cmd/narwharf/server/machines/*.go", "cmd/narwharf/server/keypair/*.go", "cmd/narwharf/server/shutdown/*.go", "e2e/*.go", "e2e/*/*.go",
		"hooks/api/gate/*.go", "hooks/rollout/check/*.go",
		"cache/probe/*.go", "hooks/doctor/remote/*.go",
		"hooks/*.go", "hooks/call/*.go", "hooks/call/*/*.go", "hooks/dashboard/*.go", "signing/access/session/*.go", "hooks/api/*.go", "hooks/api/login/*.go", "hooks/api/policy/*.go", "hooks/api/retention/*.go", "hooks/api/rollouts/*.go", "hooks/api/alarm/*.go", "hooks/api/notify/*.go", "hooks/notify/*.go", "hooks/api/transport/*.go", "hooks/login/*.go", "cmd/narwharf/access/login.go", "hooks/longpoll/*.go", "hooks/reply/*.go", "nixos/linux/*.go", "nixos/linux/join/*.go", "nixos/relay/*.go", "nixos/remote/*.go", "nixos/identity/*.go", "signing/access/*.go", "signing/access/awsiam/*.go", "signing/browser/*.go",
		"signing/access/oidc/*.go", "signing/access/oidc/oidctest/*.go"},
}

type goPackage struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
}

func (p goPackage) all() []string {
	all := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
	slices.Sort(all)
	return slices.Compact(all)
}

// goPackages asks the go command for all packages of the module.
func goPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,TestImports,XTestImports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range goPackages(t) {
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("the package %s has no row in mayImport: what may it import?", name)
			continue
		}
		for _, path := range p.all() {
			of, ours := strings.CutPrefix(path, module+"/")
			if !ours || of == name {
				continue
			}
			allowed := slices.Concat(allowed, allMayImport)
			if !slices.Contains(p.Imports, path) {
				allowed = slices.Concat(allowed, testsMayImport[name])
			}
			if !slices.ContainsFunc(allowed, func(a string) bool {
				prefix, tree := strings.CutSuffix(a, "...")
				return a == of || tree && strings.HasPrefix(of, prefix)
			}) {
				t.Errorf("%s imports %s and may import %q only", name, of, allowed)
			}
		}
	}
}

// goFiles are all Go files of the module, by slash-separated name.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "data" || name == "bin"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".go"):
			files = append(files, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// linesOf counts the lines of a file; one that is gone meanwhile has none.
func linesOf(t *testing.T, name string) int {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes.Count(text, []byte("\n"))
}

func TestFilesAreShort(t *testing.T) {
	const most = 600
	for _, name := range goFiles(t) {
		if n := linesOf(t, name); n > most {
			t.Errorf("%s has %d lines, more than %d: it holds more than one concern", name, n, most)
		}
	}
}

// largePackages are the product packages that are still larger than they should be, with
// the lines that they may have. A number is lowered or its row deleted, never raised.
var largePackages = map[string]int{
	"cache": 1842,
}

// Tests do not count, and neither do bench and e2e.
func TestPackagesAreSmall(t *testing.T) {
	const most = 1500
	lines := make(map[string]int)
	for _, name := range goFiles(t) {
		root, _, _ := strings.Cut(name, "/")
		if strings.HasSuffix(name, "_test.go") || !slices.Contains([]string{"cmd", "cache", "narinfo", "signing", "hooks", "nixos"}, root) {
			continue
		}
		lines[path.Dir(name)] += linesOf(t, name)
	}
	for name, n := range lines {
		limit, large := largePackages[name]
		switch {
		case !large && n > most:
			t.Errorf("%s has %d lines, more than %d: what else could lie beneath or beside it?", name, n, most)
		case large && n <= most:
			t.Errorf("%s has %d lines: delete its row in largePackages", name, n)
		case large && n > limit:
			t.Errorf("%s has %d lines and may have %d: it was too large before", name, n, limit)
		}
	}
	for name := range largePackages {
		if lines[name] == 0 {
			t.Errorf("largePackages has a row for %s, which is gone", name)
		}
	}
}

var importLine = regexp.MustCompile(`(?m)^(?:import )?\s*(?:[\w.]+ )?"([^"\n]+)"$`)

func TestSomeImportsStandInFewFiles(t *testing.T) {
	for _, name := range goFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range importLine.FindAllStringSubmatch(string(text), -1) {
			for path, files := range onlyIn {
				if m[1] != path && !strings.HasPrefix(m[1], path+"/") {
					continue
				}
				if !slices.ContainsFunc(files, func(pattern string) bool {
					ok, err := filepath.Match(pattern, name)
					return ok && err == nil
				}) {
					t.Errorf("%s imports %s, which only %q may", name, m[1], files)
				}
			}
		}
	}
}

// Each module that we import has a line "| `path` | …" in docs/dependencies.md.
func TestDependenciesAreExplained(t *testing.T) {
	text, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| \\S").FindAllSubmatch(text, -1) {
		explained[string(m[1])] = false
	}
	if len(explained) == 0 {
		t.Fatal("no rows in docs/dependencies.md")
	}
	for _, p := range goPackages(t) {
		for _, path := range p.all() {
			host, _, _ := strings.Cut(path, "/")
			if !strings.Contains(host, ".") { // the standard library, and ourselves
				continue
			}
			found := false
			for mod := range explained {
				if path == mod || strings.HasPrefix(path, mod+"/") {
					explained[mod], found = true, true
				}
			}
			if !found {
				t.Errorf("%s imports %s: say in docs/dependencies.md why", p.ImportPath, path)
			}
		}
	}
	for mod, used := range explained {
		if !used {
			t.Errorf("docs/dependencies.md explains %s, which nothing imports", mod)
		}
	}
}
