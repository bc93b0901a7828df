// Package doctor looks at a host and its agent: whether it can reach its server and may follow, whether its
// journal says that something is wrong, and whether anything else changes its system.
package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/hooks/api/trust"
	"narwharf/hooks/doctor"
	"narwharf/hooks/doctor/remote"
	"narwharf/nixos/config"
	"narwharf/nixos/journal"
)

// Look says what is wrong with the host of a configuration file.
func Look(ctx context.Context, file, version string) *doctor.Report {
	r := new(doctor.Report)
	cfg, err := config.Load(file)
	if err != nil {
		r.Fault("config", []string{"narwharf check-config agent " + file}, "%v", err)
		return r
	}
	r.OK("config", "%s is well formed", cfg.Path())
	for _, name := range cfg.ReadableSecrets() {
		r.Warn("secrets", []string{"chmod o-rwx " + name}, "every user of this host can read %s", name)
	}
	programs(r)
	system(r, cfg)
	r.Disk("disk", cfg.StoreDir, max(cfg.MinFree, doctor.LeastFree))
	servers(ctx, r, cfg, version)
	remembers(r, cfg)
	return r
}

func programs(r *doctor.Report) {
	for _, name := range []string{"nix-store", "nix-env", "systemctl", "systemd-run", "journalctl"} {
		if _, err := exec.LookPath(name); err != nil {
			r.Fault("programs", []string{"systemctl show -p Environment narwharf-agent"}, "%s is not in PATH: the agent needs it", name)
		}
	}
	if r.Find("programs") == nil {
		r.OK("programs", "what the agent needs is in PATH")
	}
}

// system looks whether what runs is a NixOS with an agent, and what else would change it.
func system(r *doctor.Report, cfg *config.Config) {
	current := filepath.Join(cfg.RunDir, "current-system")
	at := func(name string) bool { _, err := os.Stat(filepath.Join(current, name)); return err == nil }
	units := "etc/systemd/system/"
	switch {
	case !at("bin/switch-to-configuration"):
		r.Fault("system", []string{"ls -l " + current}, "%s has no bin/switch-to-configuration: it is no NixOS system, or has system.switch.enable = false", current)
	case !at(units + "narwharf-agent.service"):
		r.Fault("system", []string{"services.narwharf-agent.enable = true;   # in its configuration"}, "the system that runs has no narwharf-agent.service: after the next boot nothing follows the channel")
	default:
		r.OK("system", "the system that runs has the agent")
	}
	for unit, off := range map[string]string{"comin.service": "services.comin.enable = false;", "nixos-upgrade.timer": "system.autoUpgrade.enable = false;", "cachix-agent.service": "services.cachix-agent.enable = false;"} {
		if at(units + unit) {
			r.Warn("others", []string{off}, "%s changes this system, too: what it switches to is drift, and the channel's next release takes it back", unit)
		}
	}
}

// servers asks each server, with the host's token.
func servers(ctx context.Context, r *doctor.Report, cfg *config.Config, version string) {
	files := trust.Files{CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile}
	for _, at := range cfg.Servers {
		c, err := remote.New(at, files)
		if err == nil {
			err = c.Ask(ctx)
		}
		if err != nil && !errors.Is(err, remote.ErrNoRight) {
			r.Fault("server", []string{"curl -v " + at + "/readyz"}, "%v", err)
			continue
		}
		r.OK("server", "%s answers", at)
		c.Way(ctx, r)
		token(ctx, r, cfg, at, files, version)
	}
}

// token looks whether the server knows the host's token, and gives it the channel.
func token(ctx context.Context, r *doctor.Report, cfg *config.Config, at string, files trust.Files, version string) {
	if cfg.TokenFile == "" {
		r.Note("token", "no token_file is there: the host joins by %s", cfg.Asks())
		return
	}
	client, err := api.NewClient(api.ClientOptions{Servers: []string{at}, TokenFile: cfg.TokenFile, Trust: files, UserAgent: "narwharf-doctor/" + version})
	if err != nil {
		r.Fault("token", []string{"ls -l " + cfg.TokenFile}, "%v", err)
		return
	}
	info, err := login.Client{Client: client}.Info(ctx)
	fix := []string{"narwharf token new --scope pull,follow:" + cfg.Channel + " --name " + cfg.Host + " --out FILE   # on the server"}
	switch {
	case err != nil:
		r.Note("token", "%v", err)
	case info.You == nil:
		r.Fault("token", fix, "%s does not know the token in %s: it was revoked, has ended, or is another server's", at, cfg.TokenFile)
	case !follows(info.You.Scopes, cfg.Channel):
		r.Fault("token", fix, "the token in %s gives %s, and not follow:%s", cfg.TokenFile, strings.Join(info.You.Scopes, ", "), cfg.Channel)
	default:
		r.OK("token", "the token follows %s", cfg.Channel)
	}
}

func follows(scopes []string, channel string) bool {
	for _, s := range scopes {
		if pattern, ok := strings.CutPrefix(s, "follow:"); ok {
			if match, _ := filepath.Match(pattern, channel); match {
				return true
			}
		}
	}
	return false
}

// remembers says what the agent's journal has.
func remembers(r *doctor.Report, cfg *config.Config) {
	j, err := journal.Read(cfg.StateDir)
	switch {
	case err != nil:
		r.Fault("state", []string{"ls -l " + cfg.StateDir}, "%v", err)
		return
	case j.StartID == 0:
		r.Note("state", "the agent has not run yet")
		return
	}
	fix := []string{"narwharf agent status", "journalctl -u narwharf-agent -n 100"}
	switch {
	case j.Alarm != "":
		r.Fault("state", fix, "release %d: %s", j.Seq, j.Alarm)
	case j.State == api.Reverted || j.State == api.Failed || j.State == api.Rejected || j.State == api.StageFailed || j.State == api.Drifted:
		r.Fault("state", fix, "it is %s, release %d: %s", j.State, j.Seq, j.Error)
	case j.Refusal != "":
		r.Fault("state", fix, "the last polls came to nothing: %s", j.Refusal)
	default:
		r.OK("state", "it is %s, release %d", j.State, j.Seq)
	}
}
