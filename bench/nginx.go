//go:build linux

package main

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"text/template"
)

//go:embed nginx.conf.tmpl
var nginxConf string

// An nginx is the machine's nginx with a configuration of our own. The system's
// service and its configuration are never touched.
type nginx struct {
	binary  string
	version string
	dav     bool   // can take PUTs
	host    string // to listen on; "" is the loopback interface
}

// findNginx looks for nginx in PATH and where Debian has it.
func findNginx() (*nginx, error) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		binary, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		return nil, errors.New("nginx is not installed, and Narwharf is measured against it: apt-get install nginx (it need not run; the benchmark starts its own)")
	}
	out, err := exec.Command(binary, "-V").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ask nginx for its version: %w", err)
	}
	n := &nginx{binary: binary, dav: strings.Contains(string(out), "http_dav_module")}
	if m := regexp.MustCompile(`nginx/(\S+)`).FindSubmatch(out); m != nil {
		n.version = string(m[1])
	}
	return n, nil
}

// An nginxServer listens with each of its variants on an address of its own.
type nginxServer struct {
	*server
	www    string // its document root, at first empty
	cached string // address with open_file_cache
}

// start runs an nginx that has all its files in dir, which must not exist.
func (n *nginx) start(dir string) (*nginxServer, error) {
	s := &nginxServer{www: filepath.Join(dir, "www")}
	if err := os.MkdirAll(s.www, 0o755); err != nil {
		return nil, err
	}
	host := cmp.Or(n.host, loopback)
	addr, err1 := freeAddrOn(host)
	cached, err2 := freeAddrOn(host)
	dav, err3 := freeAddrOn(host)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if !n.dav {
		dav = ""
	}
	var conf strings.Builder
	err := template.Must(template.New("nginx.conf").Parse(nginxConf)).Execute(&conf, map[string]any{
		"Dir": dir, "Workers": runtime.NumCPU(), "Root": os.Geteuid() == 0,
		"Addr": addr, "Cached": cached, "Dav": dav,
	})
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, []byte(conf.String()), 0o644); err != nil {
		return nil, err
	}
	if s.server, err = start("nginx", addr, dir, exec.Command(n.binary, "-e", "stderr", "-p", dir, "-c", name)); err != nil {
		return nil, err
	}
	s.cached, s.put, s.nars = cached, dav, filepath.Join(s.www, "nar")
	return s, nil
}

// startOne is start for whoever needs no variants.
func (n *nginx) startOne(dir string) (*server, error) {
	s, err := n.start(dir)
	if err != nil {
		return nil, err
	}
	return s.server, nil
}

// layOut puts narinfos of the given texts and a link to a folder of NARs into
// the document root.
func (s *nginxServer) layOut(nars string, texts map[string][]byte) error {
	if err := os.Symlink(nars, filepath.Join(s.www, "nar")); err != nil {
		return err
	}
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(s.www, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}
