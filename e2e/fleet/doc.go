// Package fleet boots real hosts on one machine to test deployments on: Debian 12 with a real
// systemd, a real nix-daemon and a /nix of its own each, a narwharf server and a CI machine, all in
// networks that nothing outside can see. It needs root and Debian's packages, no nixpkgs and no
// virtual machine.
//
// # What stands where
//
// A [Fleet] is one mount, process and network namespace (space/init.sh is its first process) with a
// folder below .cache/fleet/run. In it every machine is an overlay on one base tree (base.sh) with a
// network namespace of its own on a common switch:
//
//	gateway 10.77.0.1   the switch itself, what a host can reach when all others are gone
//	cache   10.77.0.2   [Server]: narwharf serve, http://cache
//	ci      10.77.0.3   [CI]: builds systems, signs, copies, promotes
//	edge    10.77.0.4   [Fleet.Edge], the server of a site, where a test has one
//	h1…     10.77.0.11… [Host]: systemd-nspawn, as if it were a machine
//
// A [System] is what a host runs: a store path made by nixos/toplevel.nix that looks like NixOS's
// toplevel, with scripts that keep the contract of its switch-to-configuration, boot loader and
// activation. It misbehaves on demand, see [System.Misbehave].
//
// A host's boot begins in host/boot: it reads the default entry that the boot loader script wrote
// to /boot/loader, runs the activation script of the system named there, sets /run/booted-system and
// becomes systemd. Each boot has a boot id of its own (systemd-nspawn mounts one over
// /proc/sys/kernel/random/boot_id). `systemctl reboot` in a host is a new boot, `systemctl poweroff`
// leaves it off, [Host.PowerCut] ends all its processes at once. A host with [HostOptions].TmpfsRoot has
// /nix and /boot and nothing else after a boot; most fleets have one, so that what is told of hosts is told
// of both kinds, and the table says which ([Fleet.Roots]).
//
// A test makes a fleet, and stories in it:
//
//	f := fleet.New(t, fleet.Options{Hosts: 3, System: func(f *fleet.Fleet) fleet.System {
//		return fleet.System{Version: "0", Agent: f.CI().Agent(), AgentConfig: config(f)}
//	}})
//	fleet.Run(t, "promote", func(s *fleet.Story) {
//		f := f.For(s)
//		v1 := f.CI().BuildSystem(fleet.System{Version: "1", Agent: f.CI().Agent(), AgentConfig: config(f)})
//		f.CI().Push(v1)
//		s.Took("to last confirmed", f.CI().Narwharf("promote", "web", v1, "--wait").Took)
//		for _, h := range f.Hosts() {
//			if st := h.State(); st.Current != v1 || st.BootEntry != v1 {
//				s.Errorf("%s: %+v", h.Name(), st)
//			}
//		}
//	})
//
// TestGroup has 200 machines more: each an overlay on the image of a host, with a network namespace and processes of its own
// (space/instance.sh), whose init is the agent itself (host/init). They share one switch with the rest.
//
// # What it does not show
//
// All hosts share the machine's kernel, clock and page cache: a power cut loses no written byte, the
// kernel of a system is a file that nobody runs, and firmware, boot counting and kexec do not exist.
// The userland is Debian's: only what toplevel.nix puts into a system changes in a switch.
//
// # Nothing stays behind
//
// Before anything else a fleet starts space/reap.sh, which waits for a pipe to close and then ends
// the namespace's first process (with it the kernel ends all others and drops mounts and networks),
// removes the control groups and the folder. Closing a fleet closes the pipe; so does a panic, a
// time-out or a kill of the test. `go run ./e2e/fleet/cmd clean` is for when the reaper was killed too.
//
// # Running
//
// Tests that boot hosts run with NARWHARF_FLEET=1, else they are skipped: all of them in `make e2e`,
// in `make e2e-smoke` (with -short) the short form of TestDeploy. What the machine lacks skips them by
// name, and fails them with NARWHARF_CI=1. More variables:
// NARWHARF_BIN, NARWHARF_NIX_DIR as for package e2e; NARWHARF_FLEET_DIR in place of .cache/fleet (an
// overlay needs ext4, xfs, btrfs or tmpfs there); NARWHARF_FLEET_LOGS a folder that gets the logs of
// every machine of a failed test; NARWHARF_STORIES a file that the table of stories is added to.
package fleet
