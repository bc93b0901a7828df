// Package nixconf is what Nix on this machine is configured to do, read as Nix reads it, and
// changed so that Nix reads what was meant.
//
// Nix reads nix.conf of its folder (NIX_CONF_DIR, /etc/nix), then files of the user
// (NIX_USER_CONF_FILES, else nix/nix.conf below XDG_CONFIG_DIRS and XDG_CONFIG_HOME), then
// NIX_CONFIG. A later value replaces an earlier one, extra-NAME adds to it. A number sign begins a
// comment anywhere. (src/libutil/config.cc, src/libmain/shared.cc)
//
// Where nix-daemon does the work its own configuration counts: nix.conf and root's files. Of what a
// user says it takes substituters that it trusts itself, and everything from a trusted user
// (src/libstore/daemon.cc, performOp, SetOptions). [Machine.Effective] is what comes of both.
package nixconf
