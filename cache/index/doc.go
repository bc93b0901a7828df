// Package index answers what has been uploaded to a cache and who refers to
// whom, without reading the files.
//
// Everything in it is derived: the narinfo files are the truth, and an index
// can be made anew from them alone ("narwharf rebuild"). Two facts are an
// exception and are lost with it: who uploaded a path, and when to the second
// (the file's time stands in).
//
// Index is the contract and Table keeps it in a state that it shares with other
// tables. Keys are the 32-character hash parts of store paths, in
// which a store path is unique by Nix's own rules.
package index
