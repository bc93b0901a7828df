// Package config is an agent's configuration: one TOML file that usually comes with the
// system. docs/agent.md explains every key.
//
// An unknown key is an error with its line, and nothing is guessed. After Load all paths are
// absolute and all values are checked, and no file that the configuration names was opened.
package config
