//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"narwharf/bench/load"
)

// startProxy runs nginx, caddy or haproxy before addr, with the block that
// docs/operating.md has for it and all its files in dir; e2e starts the same.
func startProxy(program, dir, addr string) (*server, error) {
	text, err := os.ReadFile(filepath.Join("docs", "operating.md"))
	if err != nil {
		return nil, fmt.Errorf("the configuration of %s (run it in the root of the source tree): %w", program, err)
	}
	m := regexp.MustCompile("(?s)\n```" + program + "(?:file)?\n(.*?)```\n").FindSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("docs/operating.md has no block for %s", program)
	}
	listen, err := freeAddr()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config")
	block := strings.ReplaceAll(string(m[1]), "127.0.0.1:8080", addr)
	var cmd *exec.Cmd
	switch program {
	case "nginx":
		block = "daemon off; worker_processes auto; pid pid; error_log stderr warn; events { worker_connections 1000; }\nhttp { access_log off; keepalive_requests 1000000;\n" +
			strings.Replace(block, "listen 80;", "listen "+listen+";", 1) + "}\n"
		if os.Geteuid() == 0 {
			block = "user root;\n" + block
		}
		cmd = exec.Command("nginx", "-e", "stderr", "-p", dir, "-c", file)
	case "caddy":
		block = "{\n admin off\n}\n" + strings.Replace(block, "cache.example.org {", "http://"+listen+" {", 1)
		cmd = exec.Command("caddy", "run", "--config", file, "--adapter", "caddyfile")
	case "haproxy":
		cmd = exec.Command("haproxy", "-db", "-f", file)
		block = strings.Replace(block, "bind :80", "bind "+listen, 1)
	}
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	if err := os.WriteFile(file, []byte(block), 0o644); err != nil {
		return nil, err
	}
	return start(program, listen, dir, cmd)
}

// proxyRows measures narinfos and NARs through each proxy that is installed, from
// two servers: with limits.fast_path and without. CPU is that of the servers.
func proxyRows(p plan, c *closure, dir string) ([]row, error) {
	var servers []*server
	for i, on := range []string{"true", "false"} {
		s, err := startNarwharf(p.binary, filepath.Join(dir, fmt.Sprint("fast", i)), "", "fast_path = "+on)
		if err != nil {
			return nil, err
		}
		defer s.stop()
		s.name = "fast_path = " + on
		if _, err := upload(s.put, s.token, c, 8); err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	texts, err := checkAll(servers[0].addr, c)
	if err != nil {
		return nil, err
	}
	var infos, nars []load.Request
	for _, path := range c.paths {
		name := narinfoPath(path.info.Path)
		infos = append(infos, load.Get(name, int64(len(texts[name[1:]]))))
		nars = append(nars, load.Get("/"+path.info.URL, path.info.FileSize))
	}
	var rows []row
	for _, program := range []string{"nginx", "caddy", "haproxy"} {
		if _, err := exec.LookPath(program); err != nil {
			progress("no %s here: it is left out; apt-get install %s", program, program)
			continue
		}
		more, err := oneProxy(p, program, dir, servers, []reading{
			{what: "narinfo through " + program + ", 16 connections", reqs: infos, conns: 16, time: p.sample},
			{what: "stored NARs through " + program + ", 4 connections", reqs: nars, conns: 4, time: p.sample, nars: true},
		})
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// oneProxy reads through one program from each of two servers.
func oneProxy(p plan, program, dir string, servers []*server, readings []reading) (rows []row, err error) {
	var targets []target
	for i, s := range servers {
		proxy, err := startProxy(program, filepath.Join(dir, fmt.Sprint(program, i)), s.addr)
		if err != nil {
			return nil, err
		}
		defer proxy.stop()
		targets = append(targets, target{s, proxy.addr})
	}
	for _, r := range readings {
		all, err := r.measure(p.rounds, targets)
		if err != nil {
			return nil, err
		}
		format, work := "%.0f", "%.2f s/100k"
		if r.nars {
			format, work = "%.2f", "%.3f s/GB"
		}
		row := newRow(r.what+", with and without `fast_path`, "+r.unit(), format, all[0], all[1], byValue)
		row.addCPU(work, all[0], all[1])
		rows = append(rows, row)
	}
	return rows, nil
}
