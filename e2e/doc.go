// Package e2e tests Narwharf from outside: the real binary, real Nix clients of three ages, real
// sockets and disks. It imports nothing of ours, so that it can disagree with the code: its NARs,
// narinfos and signatures are made by a few lines of its own.
//
// # What stands where
//
// A [Server] is the binary with a data_dir of its own. When a test ends its server is stopped, and
// `narwharf fsck` must find nothing, the log must hold no panic and tmp/ no file: that is the
// invariant of every test here, asked after each. A [Nix] is one stock client with a private home,
// configuration and store root; it never sees the host's /nix. [Closures] are store paths built once
// per suite of clients and kept in .cache. Between client and server a test may put a [Proxy], which cuts and
// stalls TCP connections, and a [Recorder], which notes every request and can take away a base path.
// An [Uploader] is a client of our own that uploads in the order of Nix 2.35 and later, and can lie.
// A [SmallDisk] is a file system that fills up.
//
// # What it needs
//
// bin/narwharf (NARWHARF_BIN names another), the clients of nix-clients.sh (NARWHARF_NIX_DIR), and
// for store paths and small disks a mount namespace: root, or an ordinary user where user
// namespaces are allowed. What it has to get along with, the build that was delivered before, is built by
// .ci/previous from the history: its commit stands in PREVIOUS. What is missing skips the tests that need it, by name; with NARWHARF_CI=1
// it fails them. NARWHARF_SUITES limits the clients ("forky", "bookworm trixie").
// NARWHARF_FAST_PATH=false runs all servers with limits.fast_path = false. Tests behind web proxies
// start nginx, Caddy, HAProxy and Varnish, each with its block of docs/operating.md.
//
// `go test -short ./e2e` is the smoke test: every kind of test once, with small sizes. Without
// -short the big paths have 400 MB (96 for all but the newest client) and 20,000 files.
package e2e
