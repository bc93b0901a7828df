// Package compress keeps the packed NARs of local store paths: each is encoded
// once, however many ask for it, sent while it grows, and then kept as a file
// in a bounded folder.
//
// A NAR goes by the name in its URL, "<hash part>-<nar hash>.nar.zst", both in
// nix32. The bytes depend on the NAR alone, so everything here is kept under
// the NAR hash: two store paths with the same content share one encode and one
// file.
//
// # What it promises
//
//   - The bytes of a NAR hash never change: Nix resumes a broken download
//     without asking whether the file is still the same. Nobody sees the end of
//     a NAR that is not what its name says. Package encoder sees to both.
//   - Each NAR is encoded by one encoder at a time, Options.Encoders are at
//     work at once, and the others wait in the order in which they came.
//   - An encode that nobody waits for any more is broken off a few seconds
//     later, and at once if others wait for its encoder.
//   - A full or broken disk costs speed and no download: who reads an encode
//     that cannot be stored goes on with an encode of his own, see Stream.
//   - What Open returned stays readable. The file may lose its name to make
//     room, and its bytes go when the last reader closes it.
//
// # The folder
//
//	<nar hash>.nar.zst   one whole packed NAR; its mtime is when it was last used
//	<number>.new         an encode under way; removed at the next Open
//	facts                a line for each NAR ever encoded here
//	state                how the last run ended
//
// A line of facts (encoder.Digests) is written before the file gets its name and
// outlives the file, so that a narinfo keeps its FileHash. A file without a line or
// of another size is removed.
//
// # After a crash
//
// Nothing is synced while running: all of it can be made again. A process that
// dies loses nothing that it wrote, since the kernel has it. When the machine
// went down, files may hold zeros where their last bytes were not yet on disk.
// So state names the boot (/proc/sys/kernel/random/boot_id) it was written in,
// Close syncs the file system before it writes "clean", and if neither fits,
// each file is hashed once, before it is served for the first time; a file that
// is not what facts says is removed and encoded again.
//
// # What it refuses
//
// A name of another form, a folder in use by another process, and a source
// whose NAR has another hash than its name.
package compress
