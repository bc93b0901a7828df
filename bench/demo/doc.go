// Command demo starts a Narwharf with a fleet that is not there, to look at: `make demo`, or
//
//	go run ./bench/demo -hosts 200
//
// The server is the real program with a folder of its own, which goes with it. Its hosts are
// simulated (nixos/sim), each with the agent that a real one has; they speak HTTP with the server,
// on a real clock. Three channels have releases of made-up closures, whose packages change their
// versions from one to the next:
//
//	web     in waves, canaries first; now and then a release is bad and is halted
//	db      one host at a time, and somebody has to say yes after the first
//	kiosks  site by site; some are switched off, one fails now and then
//
// Releases come one after the other until Ctrl-C. With -still none comes by itself. Lines on the
// standard input do things at once:
//
//	good CHANNEL         promote a release that is well
//	bad CHANNEL          promote one that its hosts go back from
//	away CHANNEL N       switch N hosts of a channel off
//	back CHANNEL         switch them on again
//
// Whoever wants more has the file env of the folder: a shell that reads it has the program's
// PATH, server and token, and the promoter's key lies beside it.
package main
