//go:build linux

// Command bench measures Narwharf side by side with nginx: `go run ./bench`
// does everything in a quarter of an hour, `go run ./bench -quick` tries it out
// in about two minutes. It needs Linux, Go, dpkg, Debian's nginx and 10,200 open
// files; the rows of a local store also need the stock Nix that make nix-clients
// brings, and are left out by -only upload,narinfo,nar,memory,hosts.
//
// # What is measured
//
// A closure is made of the machine's installed Debian packages: each becomes a
// NAR, packed by zstd, that refers to the packages it depends on. It is
// uploaded to Narwharf by the requests that Nix makes. Then nginx gets the
// texts of the narinfos that Narwharf answers, and a link to the folder of
// Narwharf's NARs, so both serve the same bytes out of the same page cache.
// Everything is read once from both and compared with its hash before anything
// is measured, and every measured reply is checked for status and length
// (package load).
//
// Servers take turns, A B A B …, and ratios are formed within a round, because
// what else the machine does changes from second to second. -itself measures
// nginx against a second nginx and so shows which ratios are chance. Beside the
// wall stands the CPU time of the server's processes, which others disturb
// less.
//
// nginx has its default configuration with as many workers as cores, sendfile
// and tcp_nopush, no access log and connections without end; with
// open_file_cache (which may serve what has been replaced a while ago) in a row
// of its own. For uploads its dav module is the practical limit, though it does
// less: no unpacking, no hash, no fsync.
//
// # Proxies
//
// Narinfos and NARs through nginx, Caddy and HAProxy, those of them that are
// installed, each with its block of docs/operating.md, before two Narwharfs of which
// one has limits.fast_path = false. The second column is that one's.
//
// # The local store
//
// Real Nix copies the same closure, a large file and 20 000 small ones into a
// store with a database below a folder of the benchmark's own (as in
// `local?root=`; the machine's /nix is not touched), and a server without
// uploads serves it. Each path's packed NAR is asked for once, which packs it;
// from then on it and the narinfo are measured like uploaded ones, nginx having
// copies. Uncompressed NARs are made from the files as they are sent: the large
// file is compared with nginx sending the NAR as a file; the small files with
// `nix-store --dump path | cat >/dev/null` of each Nix, whose start is part of
// it (20 to 50 ms), while ours has HTTP and TCP instead of a pipe. The first
// byte is that of the body, on a new connection. Cold rows take everything out
// of the machine's page cache first; they are few, since that slows whatever
// else runs.
//
// Fifty clients that ask at once for one NAR must cost one encode, by the
// server's own metrics, and the wall of one client that asks alone plus that of
// fifty that get the finished file from nginx, times 1.3. Each of these samples
// has a new server. These clients copy what they read and check the end of the
// reply: the others' trick of not reading bodies needs a length. Stored NARs have rows of clients that copy, too, by
// reads of 16, 64 and 256 KiB, as curl and others do.
//
// # Two servers: scale
//
// Two Narwharfs with one PostgreSQL, which the benchmark starts, and a bucket of versitygw, if make versitygw
// has brought it, else a folder. Beside them stands one Narwharf with its files, and everything shares the
// machine's cores: what two servers do more than one does not show here, what sharing costs does. Statements are
// counted by pg_stat_statements, those of the servers at rest taken off.
//
// # Other servers: -peer
//
// A server of Nix stores that runs already can be measured in the same run:
//
//	go run ./bench -prepare -store /var/tmp/bench-store
//	  … start it on /var/tmp/bench-store/root, logical store /nix/store
//	go run ./bench -only store -store /var/tmp/bench-store -peer harmonia=http://127.0.0.1:5000
//
// Its narinfos must have the store's NarHash; its NARs are asked for at the URLs
// that they name, with no Accept-Encoding, and need a Content-Length. Harmonia
// has two modes worth a row. Without Accept-Encoding it sends uncompressed NARs,
// made from the files each time: that is what -peer measures. Asked with
// `Accept-Encoding: zstd` it packs each reply anew (level 1, chunked, kept
// nowhere), which is its default; measure the wall of that with
//
//	xargs -P 16 -n 25 curl -s -H 'Accept-Encoding: zstd' -o /dev/null
//
// over the URLs of the closure, on both servers, since package load wants
// lengths. It finds a store by real_nix_store = ".../root/nix/store" with
// virtual_nix_store = "/nix/store", and its database beside that, in
// .../root/nix/var/nix/db; a key by sign_key_paths.
// It has four workers unless its settings say otherwise.
//
// # First times: -only first
//
// Real Nix (the newest there is) copies the closure out of a server that has never been asked, once more by another
// client, and to an empty server; wall of that nix copy, and CPU time of the server. Its stores are new, on a tmpfs.
// nginx has the same caches as files: packed as ours are, uncompressed, and for uploads its dav module. Cold is after
// drop_caches. Over 1 Gbit/s clients are in a network name space at the end of a veth with tbf at both ends, which needs
// root, ip and tc; servers listen on 10.231.77.1 then. A -peer is measured, too; for those rows it has to listen
// there, on the same port (or on all addresses). How many copies Harmonia packs beforehand or not is its own setting:
// bring it twice, as two peers, with enable_compression true and false.
//
//	go run ./bench -only first -store /var/tmp/bench-store -peer harmonia-zstd=http://127.0.0.1:5061 -peer harmonia-raw=http://127.0.0.1:5062
//
// With a -store that is there nothing is packed anew, and the rounds begin at once; -firsts says how many.
//
// # Many hosts
//
// Many hosts on one server have no nginx to be compared with, but targets. They
// arrive within 5 s and poll as agents do; then releases are promoted, and for
// each host it is noted when it had the whole answer, by the clock of the one
// thread that is all hosts (load.Fleet). Memory is what the kernel counts as
// resident, over that of the idle server.
//
// # What is left behind
//
// Nothing but, with -write, the measured part of bench/PERFORMANCE.md: the rest
// of that file is written by people and kept. All servers have their files in a
// temporary folder and listen on free ports of the loopback interface; the
// system's nginx is not touched. NARWHARF_BIN names a binary to measure instead
// of one built from this tree.
package main
