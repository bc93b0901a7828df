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
//   - The bytes of a NAR hash never change. There is one encoder setting, a
//     test holds the hash of what it makes, and a release that has to change
//     it must change the suffix of the names too: Nix resumes a broken
//     download without asking whether the file is still the same.
//   - Nobody sees the end of a NAR that is not what its name says. The SHA-256
//     of the NAR is known before the encoder is told to end the frame, and what
//     a failed encode wrote is removed.
//   - Each NAR is encoded by one encoder at a time, Options.Encoders are at
//     work at once, and the others wait in the order in which they came.
//   - An encode that nobody waits for any more is broken off a few seconds
//     later. Those that Start began go on, but give way to those that
//     somebody waits for.
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
// A line of facts is "z1 <nar hash> <file hash> <file size> <crc32c>". It is
// written before the file gets its name and outlives the file, so that a
// narinfo keeps its Hash. A line whose sum is wrong is dropped, and so is a
// file without a line or of another size.
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
