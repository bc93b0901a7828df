package main

import (
	"fmt"
	"maps"
	"strconv"
)

// A recipe is a package of the catalogue.
type recipe struct {
	name, version string   // of the first release
	size          int      // of its files, in KiB
	needs         []string // that it refers to; all stand before it
}

// common is in every system.
var common = []recipe{
	{"glibc", "2.40-66", 420, nil},
	{"bash", "5.2p37", 110, []string{"glibc"}},
	{"coreutils", "9.7", 90, []string{"glibc"}},
	{"zlib", "1.3.1", 12, []string{"glibc"}},
	{"openssl", "3.4.1", 260, []string{"glibc", "zlib"}},
	{"util-linux", "2.41.0", 80, []string{"glibc"}},
	{"tzdata", "2025b", 30, nil},
	{"nss-cacert", "3.111", 20, nil},
	{"dbus", "1.14.10", 25, []string{"glibc"}},
	{"curl", "8.13.0", 40, []string{"openssl", "zlib"}},
	{"openssh", "10.0p2", 70, []string{"openssl", "zlib"}},
	{"systemd", "257.5", 380, []string{"bash", "dbus", "glibc", "openssl", "util-linux"}},
	{"linux", "6.12.31", 560, nil},
	{"nix", "2.28.3", 150, []string{"curl", "openssl"}},
	{"narwharf", "1.4.0", 200, []string{"nss-cacert"}},
}

// own is what systems of a channel have beside that.
var own = map[string][]recipe{
	"web": {
		{"nginx", "1.28.0", 60, []string{"openssl", "zlib"}},
		{"shop-frontend", "4.17.2", 340, nil},
	},
	"db": {
		{"postgresql", "16.8", 310, []string{"openssl", "systemd"}},
		{"pgbackrest", "2.55.0", 40, []string{"openssl", "postgresql"}},
	},
	"kiosks": {
		{"mesa", "25.0.6", 290, []string{"glibc"}},
		{"chromium", "137.0.7151.55", 700, []string{"glibc", "mesa"}},
		{"signage", "12.3", 60, []string{"chromium"}},
	},
}

// changes are what goes up from one release to the next, in turn. The kernel asks for a reboot.
var changes = map[string][][]string{
	"web":    {{"shop-frontend"}, {"nginx"}, {"openssl", "shop-frontend"}, {"linux", "systemd"}, {"curl"}},
	"db":     {{"postgresql"}, {"pgbackrest"}, {"openssl"}, {"tzdata"}},
	"kiosks": {{"signage"}, {"chromium"}, {"mesa"}, {"linux"}, {"nss-cacert", "signage"}},
}

// versions are those of a channel's packages.
type versions map[string]string

func firstVersions(channel string) versions {
	v := versions{}
	for _, r := range recipes(channel) {
		v[r.name] = r.version
	}
	return v
}

// after are the versions of the nth release after v.
func (v versions) after(channel string, n int) versions {
	next := maps.Clone(v)
	names := changes[channel][n%len(changes[channel])]
	for _, name := range names {
		next[name] = higher(next[name])
	}
	return next
}

// higher is the version that follows another: its last number is one more.
func higher(version string) string {
	start := len(version)
	for start > 0 && version[start-1] >= '0' && version[start-1] <= '9' {
		start--
	}
	n, err := strconv.Atoi(version[start:])
	if err != nil { // it ends with a letter, as that of tzdata
		return version + ".1"
	}
	return version[:start] + strconv.Itoa(n+1)
}

func recipes(channel string) []recipe {
	return append(common[:len(common):len(common)], own[channel]...)
}

// A file of a store path: a link if to is not "", else with a text or so many bytes.
type file struct {
	text, to   string
	size       int
	executable bool
}

// files are what a package has.
func (r *recipe) files(version string) map[string]file {
	if r.name == "linux" {
		return map[string]file{"bzImage": {size: r.size << 10}, "lib/modules/" + version + "/modules.dep": {text: "\n"}}
	}
	return map[string]file{
		"bin/" + r.name:                       {text: "#!/bin/sh\necho " + r.name + " " + version + "\n", executable: true},
		"lib/lib" + r.name + ".so." + version: {size: r.size << 10},
		"share/doc/" + r.name + "/README":     {text: r.name + " " + version + ", which is made up.\n"},
	}
}

// systemFiles are what a system has. at are the store paths of its packages, by name.
func systemFiles(channel, label string, at map[string]string) map[string]file {
	return map[string]file{
		"nixos-version":               {text: label},
		"system":                      {text: hostSystem},
		"init":                        {text: "#!/bin/sh\n", executable: true},
		"bin/switch-to-configuration": {text: "#!/bin/sh\n", executable: true},
		"activate":                    {text: "#!/bin/sh\n", executable: true},
		"kernel":                      {to: at["linux"] + "/bzImage"},
		"kernel-modules":              {to: at["linux"]},
		"systemd":                     {to: at["systemd"]},
		"etc/hostname":                {text: channel + "\n"},
		"etc/os-release":              {text: fmt.Sprintf("ID=nixos\nVERSION_ID=%q\nPRETTY_NAME=%q\n", "26.05", "NixOS "+label)},
	}
}
