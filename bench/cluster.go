//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"narwharf/cache/state/postgres/postgrestest"
)

// A cluster is two servers that share a database and a bucket.
type cluster struct {
	db     *postgrestest.Server
	name   string  // of the database
	bucket *server // nil: they share a folder
	a, b   *server

	joinToken func() (string, error)
}

// startCluster starts it. limits are lines of [limits] of both servers.
func startCluster(binary, dir string, limits ...string) (_ *cluster, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	c := new(cluster)
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	c.db, err = postgrestest.Start("shared_preload_libraries=pg_stat_statements", "max_connections=80", "shared_buffers=256MB", "max_wal_size=4GB")
	if err != nil {
		return nil, err
	}
	if c.name, err = c.db.Database(); err != nil {
		return nil, err
	}
	if err := c.db.Exec(c.name, "create extension pg_stat_statements"); err != nil {
		return nil, err
	}
	content, err := c.content(dir)
	if err != nil {
		return nil, err
	}
	key, err := output(binary, "key", "generate", "bench-1")
	if err != nil {
		return nil, err
	}
	sections := fmt.Sprintf("\n[storage]\nstate = %q\n%s\n[fleetlock]\ngroups = {bench = 1000}\n\n[limits]\n%s\n", c.db.URL(c.name), content, strings.Join(limits, "\n"))
	for i, s := range []**server{&c.a, &c.b} {
		if *s, err = startWith(loopback, binary, filepath.Join(dir, fmt.Sprintf("server-%d", i)), key, sections); err != nil {
			return nil, err
		}
	}
	c.joinToken = func() (string, error) {
		token, err := output(binary, "token", "new", "--config", filepath.Join(dir, "server-0", "config.toml"), "--join", webChannel, "--uses", "1000")
		return strings.TrimSpace(string(token)), err
	}
	return c, nil
}

// Keys of the bucket, which ends with the benchmark.
const bucketKey = "narwharf-bench"

// content starts a bucket, if there is a program for it, and returns the lines of [storage].
func (c *cluster) content(dir string) (string, error) {
	found, _ := filepath.Glob(".cache/tools/versitygw-*") // the pattern is well-formed
	if len(found) == 0 {
		return fmt.Sprintf("content = %q", filepath.Join(dir, "content")), nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	files, key := filepath.Join(dir, "gateway"), filepath.Join(dir, "bucket-key")
	err = errors.Join(l.Close(), os.MkdirAll(filepath.Join(files, "bucket"), 0o755),
		os.WriteFile(key, []byte("aws_access_key_id = "+bucketKey+"\naws_secret_access_key = "+bucketKey+"-secret\n"), 0o600))
	if err != nil {
		return "", err
	}
	c.bucket, err = start("versitygw", addr, dir, exec.Command(found[len(found)-1], "--port", addr, "--access", bucketKey, "--secret", bucketKey+"-secret", "posix", files))
	return fmt.Sprintf("content = %q\ncredentials_file = %q", "s3://bucket?endpoint=http://"+addr, key), err
}

// where is where the files lie, for people.
func (c *cluster) where() string {
	if c.bucket == nil {
		return "a folder"
	}
	return "S3"
}

func (c *cluster) stop() {
	for _, s := range []*server{c.a, c.b, c.bucket} {
		if s != nil {
			s.stop()
		}
	}
	if c.db != nil {
		c.db.Close()
	}
}

// statements are how many the database has done, beside those of transactions themselves.
func (c *cluster) statements() (float64, error) {
	return c.db.Number(c.name, `select coalesce(sum(calls), 0)::float8 from pg_stat_statements
		where query !~* '^(begin|commit|rollback|start transaction|listen|select .*pg_stat|-- ping|;)' and dbid = (select oid from pg_database where datname = current_database())`)
}

// during is how many statements fn made, those of a server at rest taken off.
func (c *cluster) during(fn func() error) (float64, error) {
	const rest = 5 * time.Second
	first, err := c.statements()
	if err != nil {
		return 0, err
	}
	time.Sleep(rest)
	before, err := c.statements()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := fn(); err != nil {
		return 0, err
	}
	took := time.Since(began)
	after, err := c.statements()
	return after - before - (before-first)*float64(took)/float64(rest), err
}
