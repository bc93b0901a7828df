package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// crowd is many connections to a server.
type crowd struct {
	t     *testing.T
	addr  string
	conns []*member
}

type member struct {
	net.Conn
	in *bufio.Reader
}

func (c *crowd) dial() *member {
	c.t.Helper()
	conn, err := net.DialTimeout("tcp", c.addr, 5*time.Second)
	if err != nil {
		c.t.Fatal(err)
	}
	m := &member{conn, bufio.NewReader(conn)}
	c.conns = append(c.conns, m)
	return m
}

func (c *crowd) close() {
	for _, m := range c.conns {
		m.Close()
	}
}

// get asks for a path and reads the answer.
func (m *member) get(path string, header ...string) (*http.Response, error) {
	m.send(path, header...)
	resp, err := http.ReadResponse(m.in, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	return resp, err
}

func (m *member) send(path string, header ...string) {
	_ = m.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(m, "GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n", path, strings.Join(append(header, ""), "\r\n")) // what fails here fails in the answer
}

// isOpen tells whether the server has closed a connection, on which nothing is to come.
func (m *member) isOpen() bool {
	_ = m.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := m.in.Peek(1)
	return err != nil && os.IsTimeout(err)
}

// Two thousand hosts behind one address stay parked, though an address may have few
// connections without a token, of which others there have as many as they can get; and all
// hear of a change.
func TestHostsBehindOneAddress(t *testing.T) {
	for name, tokens := range map[string]int{"one token": 1, "many tokens": 20} {
		t.Run(name, func(t *testing.T) {
			const hosts = 2000
			s := NewServer(t, func(c *Config) { c.Limits = []string{"connections = 4000", "connections_per_address = 50"} })
			operator := s.Token("operator", "operate")
			var secrets []string
			for i := range tokens {
				secrets = append(secrets, s.Token(fmt.Sprint("hosts-", i), "follow:web"))
			}
			parked, others := &crowd{t: t, addr: s.Addr()}, &crowd{t: t, addr: s.Addr()}
			defer parked.close()
			defer others.close()
			for range hosts {
				parked.dial() // all before the first of them says who it is
			}
			var wg sync.WaitGroup
			for at := range 16 {
				wg.Go(func() {
					for i := at; i < hosts; i += 16 {
						host := fmt.Sprintf("/api/v1/hosts/web-%d/desired?channel=web", i)
						auth := "Authorization: Bearer " + secrets[i%tokens]
						resp, err := parked.conns[i].get(host, auth) //nolint:bodyclose // get has read it to its end
						if err != nil || resp.StatusCode != 200 {    // it had to make room before it was heard: an agent asks again
							parked.conns[i].Conn.Close()
							conn, derr := net.DialTimeout("tcp", s.Addr(), 5*time.Second)
							if derr != nil {
								t.Error(derr)
								return
							}
							parked.conns[i] = &member{conn, bufio.NewReader(conn)}
							if resp, err = parked.conns[i].get(host, auth); err != nil || resp.StatusCode != 200 { //nolint:bodyclose // as above
								t.Errorf("host %d: %v, %v", i, resp, err)
								return
							}
						}
						parked.conns[i].send(host, auth, "If-None-Match: "+resp.Header.Get("Etag"), "Prefer: wait=120")
					}
				})
			}
			wg.Wait()
			for range 200 { // idle ones, without a token
				others.dial()
			}
			for range 20 {
				if resp, err := others.dial().get("/nix-cache-info"); err != nil || resp.StatusCode != 200 { //nolint:bodyclose // get has read it to its end
					t.Fatalf("%v, %v", resp, err)
				}
			}
			for i, m := range parked.conns {
				if !m.isOpen() {
					t.Fatalf("host %d is not parked any more", i)
				}
			}
			s.setPolicy(operator, "web", `{"confirm_timeout_s":300}`)
			for i, m := range parked.conns {
				_ = m.SetReadDeadline(time.Now().Add(20 * time.Second))
				resp, err := http.ReadResponse(m.in, nil) //nolint:bodyclose // it is read to its end below
				if err != nil || resp.StatusCode != 200 {
					t.Fatalf("host %d was not woken: %v, %v", i, resp, err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func (s *Server) setPolicy(token, channel, policy string) {
	s.T.Helper()
	req, err := http.NewRequest(http.MethodPut, s.URL()+"/api/v1/channels/"+channel+"/policy", strings.NewReader(policy))
	if err != nil {
		s.T.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := s.client.Do(req)
	if err != nil {
		s.T.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.T.Fatal(resp.Status)
	}
}

// A process that may open 300 files is not made deaf by 1,000 connections that say nothing, or
// that wait without a token, and its log says what happens.
func TestFewFiles(t *testing.T) {
	s := newServer(t, scratch(t), nil)
	s.prefix = []string{"prlimit", "--nofile=300:300"}
	needTool(t, "prlimit", "util-linux")
	s.Start()
	c := &crowd{t: t, addr: s.Addr()}
	defer c.close()
	for i := range 1000 {
		m := c.dial()
		if i%2 == 0 {
			m.send("/api/v1/channels/web", "Prefer: wait=120", `If-None-Match: "0"`)
		}
		if i%100 == 99 {
			if resp, err := c.dial().get("/nix-cache-info"); err != nil || resp.StatusCode != 200 { //nolint:bodyclose // get has read it to its end
				t.Fatalf("after %d: %v, %v\n%s", i, resp, err, s.LogTail())
			}
		}
	}
	if log := s.LogTail(); !strings.Contains(log, "connections without a request were closed") {
		t.Errorf("the log says nothing of it:\n%s", log)
	}
}
