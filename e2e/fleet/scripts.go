package fleet

import "embed"

// scripts are what runs inside: the space's own scripts, what a host's tree gets, what builds systems.
//
//go:embed space/*.sh host/* nixos/*
var scripts embed.FS

func script(name string) string {
	text, err := scripts.ReadFile(name)
	if err != nil {
		panic(err) // the name is a constant of this package
	}
	return string(text)
}
