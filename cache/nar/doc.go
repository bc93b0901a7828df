// Package nar reads and writes Nix archives (NARs).
package nar
