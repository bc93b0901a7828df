// Package linux is the host that the agent runs on: what package nixos wants done is done
// here with systemd, Nix and the files below /run, /nix and the state directory. It needs
// root, and nix-store, nix-env, systemctl, systemd-run and journalctl in PATH.
//
// Each part of a nixos.Host is a type of its own: system, boot, health and network here,
// the store in package nix, runs of switch-to-configuration in package systemd. What is said
// to the server is said by package remote.
//
// # On disk
//
// The state directory has the journal, the instance (which machine this is to the server),
// the host's token where no other file is named, locks, runs/ (package systemd), gcroots/
// (indirect roots of Nix), probe.json (the last report that a system on trial was given) and
// pause.json (what a person on the host wants). Each is replaced whole. Nothing is kept elsewhere: with a root of tmpfs /nix is all that survives a boot.
package linux
