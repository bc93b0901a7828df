package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"narwharf/cache/blob/s3/s3test"
	"narwharf/cache/state/postgres/postgrestest"
)

// cluster is servers that share a database and a bucket, behind nginx, which sends each request to
// another one. Each has lines of its own to both, which a test may cut.
type cluster struct {
	t       *testing.T
	all     []*Server
	url     string // of nginx
	db      *postgrestest.Server
	standby *postgrestest.Server // nil: there is none
	name    string               // of the database
	bucket  *s3test.Gateway
	lines   []lines // by server
	admin   string  // a token
}

type lines struct{ db, bucket *Proxy }

// options are what differs from a cluster of two servers with one database.
type options struct {
	servers     int
	standby     bool
	synchronous bool
	retention   []string
	bin         map[int]string // programs of some servers
	settings    []string       // of the database
}

func newCluster(t *testing.T, o options) *cluster {
	t.Helper()
	db := postgrestest.Need(t, append(o.settings, "max_connections=80", "fsync=off")...)
	c := &cluster{t: t, db: db}
	var err error
	if c.name, err = db.Database(); err != nil {
		t.Fatal(err)
	}
	if o.standby {
		if c.standby, err = db.Standby(o.synchronous); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.standby.Close)
	}
	c.bucket = s3test.Versitygw(t)
	upstreams, key := "", NewKey("cluster-1")
	for i := range max(o.servers, 2) {
		s := c.server(key, o, i)
		s.Start()
		c.all = append(c.all, s)
		upstreams += fmt.Sprintf("    server %s max_fails=0;\n", s.Addr())
	}
	c.url = startWebProxy(t, "nginx", c.all[0].Addr(), func(block string) string {
		return strings.Replace(block, "    server 127.0.0.1:8080;\n", upstreams, 1)
	})
	c.admin = c.all[0].Token("admin", "admin", "operate", "push", "promote:*", "read:*")
	return c
}

// server makes the configuration of one.
func (c *cluster) server(key Key, o options, i int) *Server {
	line := lines{NewProxy(c.t, c.db.Socket()), NewProxy(c.t, c.bucket.Address)}
	c.lines = append(c.lines, line)
	hosts, more := line.db.Addr(), ""
	if c.standby != nil {
		hosts, more = hosts+","+NewProxy(c.t, c.standby.Socket()).Addr(), "&target_session_attrs=read-write"
	}
	dir := scratch(c.t)
	s := newServer(c.t, dir, func(conf *Config) {
		conf.Retention = o.retention
		conf.More = append(conf.More, "[storage]\n"+strings.Join([]string{
			fmt.Sprintf("state = %q", "postgres://narwharf@"+hosts+"/"+c.name+"?sslmode=disable"+more),
			fmt.Sprintf("content = %q", "s3://bucket?endpoint=http://"+line.bucket.Addr()),
			`credentials_file = "bucket-key"`,
		}, "\n")+"\n")
	})
	s.writeFile(filepath.Join(dir, "bucket-key"), "aws_access_key_id = "+s3test.AccessKey+"\naws_secret_access_key = "+s3test.SecretKey+"\n", 0o600)
	s.Key = key // one cache, one key
	if bin := o.bin[i]; bin != "" {
		s.bin = bin
	}
	s.Reconfigure(func(conf *Config) { conf.SecretKeyFiles = []string{s.WriteKey(key)} })
	return s
}

// who is the server that does a kind of work alone, as all are asked until one says so.
func (c *cluster) who(work string) *Server {
	c.t.Helper()
	var found *Server
	soon(c.t, 30*time.Second, func() string {
		reply, err := NewUploader(c.t, c.url, c.admin).Try("GET", "/api/v1/replicas", "", nil)
		var list struct {
			Replicas []struct {
				Name string
				Does []string
			}
		}
		if err != nil || json.Unmarshal([]byte(reply.Body), &list) != nil {
			return fmt.Sprint(reply, err)
		}
		for _, r := range list.Replicas {
			for _, s := range c.all {
				if slices.Contains(r.Does, work) && strings.HasSuffix(r.Name, fmt.Sprintf(":%d", s.Port)) {
					found = s
					return ""
				}
			}
		}
		return "nobody does " + work + ": " + reply.Body
	})
	if found == nil {
		c.t.FailNow()
	}
	return found
}

// lineOf are the lines of a server.
func (c *cluster) lineOf(s *Server) lines { return c.lines[slices.Index(c.all, s)] }

// restart kills a server, and starts it again a moment later.
func (c *cluster) restart(s *Server, after time.Duration) {
	s.Kill()
	time.Sleep(after)
	s.Start()
}

// suspend stops a server's process for a time.
func (c *cluster) suspend(s *Server, d time.Duration) {
	s.Signal(syscall.SIGSTOP)
	time.Sleep(d)
	s.Signal(syscall.SIGCONT)
}

// ready waits until all servers say that they are.
func (c *cluster) ready(limit time.Duration) {
	c.t.Helper()
	for _, s := range c.all {
		soon(c.t, limit, func() string { return wantStatus(NewUploader(c.t, s.URL(), ""), "/readyz", 200) })
	}
}
