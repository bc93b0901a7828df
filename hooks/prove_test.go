package hooks

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"narwharf/hooks/api"
	"narwharf/hooks/api/proof"
	"narwharf/hooks/identity"
	"narwharf/signing/access"
	"narwharf/signing/access/awsiam"
	"narwharf/signing/access/hostkey"
	"narwharf/signing/access/scope"
)

const publicURL = "https://cache.example.org"

var followsWeb = scope.Set{{Kind: scope.Follow, Glob: "web"}}

// newIdentityWorld is a server where machines may join by SSH keys, by a role of AWS, and by JWTs.
func newIdentityWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.identity = identity.Options{
		PublicURL: publicURL,
		SSH:       &identity.SSH{Scopes: followsWeb, TTL: time.Hour},
		AWS: []identity.AWS{{
			Name: "asg", Account: "123456789012", Role: "narwharf-host", Scopes: followsWeb, Hosts: []string{"asg-*"}, TTL: 10 * time.Minute, Forget: time.Hour,
		}},
		STS:  awsiam.New(fakeSTS{}, w.now),
		JWTs: jwts{},
	}
	w.restart()
	return w
}

// fakeSTS says of whoever has signed with the right token that he has the role.
type fakeSTS struct{}

func (fakeSTS) RoundTrip(req *http.Request) (*http.Response, error) {
	role := strings.TrimPrefix(req.Header.Get("X-Amz-Security-Token"), "credentials-of-")
	text := fmt.Sprintf(`{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"123456789012","Arn":"arn:aws:sts::123456789012:assumed-role/%s/i-0abc","UserId":"A:i-0abc"},"ResponseMetadata":{"RequestId":"r"}}}`, role)
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// jwts takes "x.SUBJECT.HOST".
type jwts struct{}

func (jwts) Machine(_ context.Context, jwt string) (access.Grant, []string, error) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return access.Grant{}, nil, errors.New("the JWT is none")
	}
	if parts[1] == "away" {
		return access.Grant{}, nil, fmt.Errorf("%w: the issuer is away", access.ErrUnchecked)
	}
	return access.Grant{
		Kind: "oidc", Issuer: "cloud", Rule: "group", Subject: parts[1], Owner: "cloud/" + parts[1], Host: parts[2], Scopes: followsWeb, TTL: 5 * time.Minute, Forget: time.Hour,
	}, []string{"vm-*"}, nil
}

// sshKey is the host key of a machine.
func sshKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// knows sets the known_hosts file.
func (w *world) knows(lines ...string) {
	w.t.Helper()
	l, err := hostkey.ParseList([]byte(strings.Join(lines, "\n")))
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.s.Identities.SetList(w.t.Context(), l); err != nil {
		w.t.Fatal(err)
	}
}

func line(host string, key ssh.Signer) string {
	return host + " " + string(ssh.MarshalAuthorizedKey(key.PublicKey()))
}

// nonce asks for one.
func (m *machine) nonce() string {
	m.w.t.Helper()
	c := decode[proof.Challenged](m.w.t, m.w.must(m.w.do("POST", "/api/v1/challenge", "", proof.Challenge{Host: m.host, Instance: m.instance}), 200, ""))
	if c.URL != publicURL || c.ExpiresIn != 60 {
		m.w.t.Errorf("%+v", c)
	}
	return c.Nonce
}

// proves asks for the host's token by a proof.
func (m *machine) proves(p *proof.Proof) answer {
	m.w.t.Helper()
	return m.w.do("POST", "/api/v1/join", "", api.Join{Host: m.host, Channel: "web", Instance: m.instance, Machine: m.machine, Proof: p})
}

func (m *machine) bySSH(key ssh.Signer) *proof.Proof {
	m.w.t.Helper()
	nonce := m.nonce()
	signature, err := hostkey.Sign(key, hostkey.Message(nonce, publicURL, m.host, m.instance))
	if err != nil {
		m.w.t.Fatal(err)
	}
	return &proof.Proof{Type: proof.SSH, Nonce: nonce, Signature: signature}
}

func (m *machine) byAWS(role string) *proof.Proof {
	m.w.t.Helper()
	nonce := m.nonce()
	p, err := awsiam.Sign(awsiam.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: "s", SessionToken: "credentials-of-" + role}, "eu-west-1", nonce, publicURL, m.w.now())
	if err != nil {
		m.w.t.Fatal(err)
	}
	return &proof.Proof{Type: proof.AWS, Nonce: nonce, Region: p.Region, Date: p.Date, AccessKeyID: p.AccessKeyID, SessionToken: p.SessionToken, Signature: p.Signature}
}

func byJWT(subject, host string) *proof.Proof {
	return &proof.Proof{Type: proof.OIDC, Token: "x." + subject + "." + host}
}

// in takes the token of a join.
func (m *machine) in(a answer) api.Joined {
	m.w.t.Helper()
	j := decode[api.Joined](m.w.t, m.w.must(a, 201, ""))
	m.host, m.token = j.Host, j.Token
	return j
}

// TestJoinByKey: a host whose key is listed joins, renews, and is cut off.
func TestJoinByKey(t *testing.T) {
	w := newIdentityWorld(t)
	key, m := sshKey(t), w.machine("web-1", "a", "boot-a")
	w.knows(line("web-1", key))
	p := m.bySSH(key)
	first := m.in(m.proves(p))
	if first.ExpiresIn != 3600 || first.Host != "web-1" || first.Channel != "web" {
		t.Errorf("%+v", first)
	}
	m.taken()
	h := w.show("web-1")
	if h.Identity == nil || h.Identity.Owner != "ssh/"+ssh.FingerprintSHA256(key.PublicKey()) || h.Identity.Instance != m.instance || h.By != "ssh/known_hosts" {
		t.Errorf("%+v", h.Identity)
	}
	w.wantEvents("host.joined", 1, false)

	// The proof is good once, for this host, instance and server.
	w.must(m.proves(p), 403, api.Forbidden, "used before")
	other := *m
	other.host = "web-2"
	p = m.bySSH(key)
	w.must(other.proves(p), 403, api.Forbidden, "another host")
	p = m.bySSH(key)
	p.Signature = strings.Replace(p.Signature, "SSH SIGNATURE", "PGP SIGNATURE", 2)
	w.must(m.proves(p), 403, api.Forbidden, "armour")
	p = m.bySSH(sshKey(t))
	w.must(m.proves(p), 403, api.Forbidden, "nobody has said yet", "narwharf host approve web-1 --key SHA256:")
	p = other.bySSH(key)
	w.must(other.proves(p), 403, api.Forbidden, "another host's")

	// It acts as itself alone, on its channel alone.
	other.token = m.token
	w.must(other.poll(), 403, api.Forbidden, "web-1")
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired?channel=db", m.token, nil), 403, api.Forbidden)
	w.must(w.do("GET", "/api/v1/hosts", m.token, nil), 403, api.Forbidden)

	// It renews: three tokens are good at a time, also after a restart of the server.
	old, later := m.token, w.standing()
	for range 2 {
		later(time.Second)
		m.in(m.proves(m.bySSH(key)))
	}
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired"+m.query(), old, nil), 200, "")
	m.in(m.proves(m.bySSH(key)))
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired"+m.query(), old, nil), 401, api.Unauthorized)
	w.restart()
	w.knows(line("web-1", key))
	m.taken()
	w.wantEvents("host.joined", 1, false)
	later(61 * time.Minute)
	w.must(m.poll(), 401, api.Unauthorized, "expired")
	m.in(m.proves(m.bySSH(key)))
	m.taken()

	// A machine with its key and another instance is another machine, until a person says so.
	clone := w.machine("web-1", "b", "boot-b")
	w.must(clone.proves(clone.bySSH(key)), 409, api.IdentityConflict, "another machine has the name web-1")
	m.taken()
	w.must(w.approve("web-1", clone.instance), 200, "")
	w.must(m.poll(), 401, api.Unauthorized)
	clone.in(clone.proves(clone.bySSH(key)))
	clone.taken()
	if h := w.show("web-1"); h.Identity.Owner != "ssh/"+ssh.FingerprintSHA256(key.PublicKey()) {
		t.Errorf("%+v", h.Identity)
	}

	// Another key for the same machine: it is the host that is listed.
	fresh := sshKey(t)
	w.knows(line("web-1", fresh), "@revoked "+line("*", key))
	w.must(clone.proves(clone.bySSH(key)), 403, api.Forbidden, "is revoked")
	before := clone.token
	clone.in(clone.proves(clone.bySSH(fresh)))
	clone.taken()
	w.must(w.do("GET", "/api/v1/hosts/web-1/desired"+clone.query(), before, nil), 401, api.Unauthorized)

	// Removed, it is out at once, and comes back as its key is still listed.
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	w.must(clone.poll(), 401, api.Unauthorized)
	if list := w.short.List(); len(list) != 0 {
		t.Errorf("%d tokens stay", len(list))
	}
	clone.in(clone.proves(clone.bySSH(fresh)))
	clone.taken()
}

// TestApproveKey: a host asks with its key, and joins once an operator has approved that.
func TestApproveKey(t *testing.T) {
	w := newIdentityWorld(t)
	key, m := sshKey(t), w.machine("web-1", "a", "boot-a")
	fingerprint := ssh.FingerprintSHA256(key.PublicKey())
	w.must(w.do("GET", "/api/v1/hosts/web-1", w.op, nil), 404, api.NotFound)
	w.must(m.proves(m.bySSH(key)), 403, api.Forbidden, "narwharf host approve web-1 --key "+fingerprint)
	w.restart()
	if h := w.show("web-1"); len(h.Asks) != 1 || h.Asks[0].Key != fingerprint || h.Asks[0].Address != "127.0.0.1" || h.Asks[0].Instance != m.instance {
		t.Errorf("%+v", h.Asks)
	}
	approve := func(host, key string) answer {
		return w.do("POST", "/api/v1/hosts/"+host+"/approve", w.op, map[string]string{"key": key})
	}
	w.must(approve("web-1", "SHA256:short"), 400, api.BadRequest, "ssh-keygen -lf")
	w.must(w.do("POST", "/api/v1/hosts/web-1/approve", w.ci, map[string]string{"key": fingerprint}), 403, api.Forbidden)
	w.must(w.do("POST", "/api/v1/hosts/web-1/approve", w.token("op-db", "operate:db"), map[string]string{"key": fingerprint}), 403, api.Forbidden)
	w.must(approve("web-1", fingerprint), 200, "")
	db := w.do("POST", "/api/v1/join", "", api.Join{Host: "web-1", Channel: "db", Instance: m.instance, Proof: m.bySSH(key)})
	w.must(db, 403, api.Forbidden, "nobody has said yet", "in the channel db")
	m.in(m.proves(m.bySSH(key)))
	m.taken()
	if h := w.show("web-1"); len(h.Asks) != 0 || h.By != "ssh/approved" {
		t.Errorf("%+v", h)
	}
	// One key is one host.
	second := w.machine("web-2", "c", "boot-c")
	w.must(second.proves(second.bySSH(sshKey(t))), 403, api.Forbidden, "nobody has said yet")
	w.must(approve("web-2", fingerprint), 409, api.IdentityConflict, "that of web-1")
	w.must(approve("web-2", ssh.FingerprintSHA256(sshKey(t).PublicKey())), 404, api.NotFound, "no machine asks")
	w.must(second.proves(second.bySSH(key)), 403, api.Forbidden, "another host's")
	w.knows("@revoked " + line("*", key))
	w.must(m.proves(m.bySSH(key)), 403, api.Forbidden, "revoked")
	w.must(approve("web-1", fingerprint), 403, api.Forbidden, "revoked")
	w.knows()
	// What was approved goes with the host.
	w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "")
	w.must(m.proves(m.bySSH(key)), 403, api.Forbidden, "nobody has said yet")
}

// TestRefuseKey: who operates a channel sees what asks to be of it, and refuses; the machine is told by whom, also when it asks
// again, until somebody approves it.
func TestRefuseKey(t *testing.T) {
	w := newIdentityWorld(t)
	later := w.standing()
	key, m := sshKey(t), w.machine("web-1", "a", "boot-a")
	fingerprint := ssh.FingerprintSHA256(key.PublicKey())
	asks := func(token string) []api.Ask {
		t.Helper()
		return decode[struct {
			Asks []api.Ask `json:"asks"`
		}](t, w.must(w.do("GET", "/api/v1/asks", token, nil), 200, "")).Asks
	}
	refuse := func(token, key string) answer {
		return w.do("POST", "/api/v1/hosts/web-1/refuse", token, map[string]string{"key": key})
	}
	w.must(refuse(w.op, fingerprint), 404, api.NotFound)
	w.must(m.proves(m.bySSH(key)), 403, api.Forbidden, "nobody has said yet")
	if list := asks(w.token("of-web", "read:web")); len(list) != 1 || list[0].Key != fingerprint || list[0].Host != "web-1" || list[0].RefusedBy != "" {
		t.Errorf("%+v", list)
	}
	if list := asks(w.token("of-db", "operate:db")); len(list) != 0 {
		t.Errorf("of another channel: %+v", list)
	}
	w.must(w.do("GET", "/api/v1/asks", w.host, nil), 403, api.Forbidden)
	w.must(refuse(w.op, "SHA256:short"), 400, api.BadRequest)
	w.must(refuse(w.token("db-again", "operate:db"), fingerprint), 403, api.Forbidden)
	w.must(refuse(w.op, fingerprint), 204, "")
	w.wantEvents("host.refused", 1, false)
	w.must(m.proves(m.bySSH(key)), 403, api.Forbidden, "op has refused the key "+fingerprint)
	later(time.Hour)
	w.must(m.proves(m.bySSH(key)), 403, api.Forbidden, "op has refused")
	if list := asks(w.op); len(list) != 1 || list[0].RefusedBy != "op" {
		t.Errorf("%+v", list)
	}
	w.must(w.do("POST", "/api/v1/hosts/web-1/approve", w.op, map[string]string{"key": fingerprint}), 200, "")
	m.in(m.proves(m.bySSH(key)))
	if list := asks(w.op); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// TestAsksAreBounded: strangers leave some keys behind, and those who ask again stay.
func TestAsksAreBounded(t *testing.T) {
	w := newIdentityWorld(t)
	later := w.standing()
	first := w.machine("web-0", "a", "boot-a")
	key := sshKey(t)
	for i := range 300 {
		later(5 * time.Second) // a tenth of a second of processor time each
		m := w.machine(fmt.Sprint("web-", i), fmt.Sprint(i), "b")
		if a := m.proves(m.bySSH(sshKey(t))); a.status == 503 { // it has had all that one address may
			w.restart()
		}
		if i%40 == 0 {
			later(11 * time.Minute)
			first.proves(first.bySSH(key))
		}
	}
	asks := 0
	for i := range 300 {
		asks += len(w.s.Identities.Asks(fmt.Sprint("web-", i)))
	}
	if asks > 256 || asks < 200 || len(w.s.Identities.Asks("web-0")) == 0 {
		t.Errorf("%d asks, %d of web-0", asks, len(w.s.Identities.Asks("web-0")))
	}
}

// TestJoinByAWS: machines of a role get names that the rule lets them have.
func TestJoinByAWS(t *testing.T) {
	w := newIdentityWorld(t)
	m := w.machine("", "a", "boot-a")
	j := m.in(m.proves(m.byAWS("narwharf-host")))
	if !strings.HasPrefix(j.Host, "asg-") || len(j.Host) != 14 || j.ExpiresIn != 600 {
		t.Errorf("%+v", j)
	}
	m.taken()
	if h := w.show(j.Host); h.Identity.Owner != "aws/123456789012/narwharf-host" {
		t.Errorf("%+v", h.Identity)
	}
	// An answer that was lost: the same machine gets the same name.
	again := *m
	again.host = ""
	if is := again.in(again.proves(again.byAWS("narwharf-host"))); is.Host != j.Host {
		t.Errorf("it was %s, and is %s", j.Host, is.Host)
	}
	m.in(m.proves(m.byAWS("narwharf-host")))
	m.taken()
	other := w.machine(j.Host, "b", "boot-b")
	w.must(other.proves(other.byAWS("narwharf-host")), 409, api.IdentityConflict)
	other.host = "asg-mine"
	other.in(other.proves(other.byAWS("narwharf-host")))
	other.taken()
	third := w.machine("web-1", "c", "boot-c")
	w.must(third.proves(third.byAWS("narwharf-host")), 403, api.Forbidden, "asg-*", "leave host out")
	w.must(third.proves(third.byAWS("admin")), 403, api.Forbidden, "no rule of [[access.aws]]")
	p := third.byAWS("narwharf-host")
	p.Region = "evil.example/"
	w.must(third.proves(p), 403, api.Forbidden, "region")
	p = third.byAWS("narwharf-host")
	p.Nonce = "x"
	w.must(third.proves(p), 403, api.Forbidden, "nonce")
}

// TestJoinByJWT: the name of a claim, and who else has it.
func TestJoinByJWT(t *testing.T) {
	w := newIdentityWorld(t)
	m := w.machine("", "a", "boot-a")
	if j := m.in(m.proves(byJWT("one", "vm-1"))); j.Host != "vm-1" || j.ExpiresIn != 300 {
		t.Errorf("%+v", j)
	}
	m.taken()
	m.in(m.proves(byJWT("one", "vm-1")))
	other := w.machine("", "b", "boot-b")
	w.must(other.proves(byJWT("two", "vm-1")), 409, api.IdentityConflict)
	same := w.machine("", "a", "boot-a") // it says the instance that it saw
	w.must(same.proves(byJWT("two", "vm-1")), 409, api.IdentityConflict, "belongs to another identity")
	same.host = "vm-2"
	w.must(same.proves(byJWT("one", "vm-1")), 403, api.Forbidden, "says that this machine is vm-1")
	drawn := w.machine("", "c", "boot-c")
	if j := drawn.in(drawn.proves(byJWT("three", ""))); !strings.HasPrefix(j.Host, "vm-") {
		t.Errorf("%+v", j)
	}
	w.must(other.proves(&proof.Proof{Type: "oidc", Token: "none"}), 403, api.Forbidden, "the JWT is none")
	w.must(other.proves(byJWT("away", "")), 503, api.Unavailable, "try again soon")
	w.must(other.proves(&proof.Proof{Type: "tpm"}), 403, api.Forbidden, "not taken here")
	w.must(w.machine("vm-3", "b", "boot-b").proves(nil), 401, api.Unauthorized)
	// A name that a host has by a token is not taken from it.
	token := w.machine("vm-9", "d", "boot-d")
	token.joins(w.joinToken("rack", "vm-9", 1))
	w.must(other.proves(byJWT("four", "vm-9")), 409, api.IdentityConflict)
	token.taken()
}

// TestHostsPerIdentity: one identity makes a bounded number of hosts.
func TestHostsPerIdentity(t *testing.T) {
	w := newIdentityWorld(t)
	w.perCredential = 3
	w.restart()
	for i := range 4 {
		m := w.machine("", fmt.Sprint(i), "b")
		a := m.proves(byJWT("one", ""))
		if i < 3 {
			m.in(a)
		} else {
			w.must(a, 403, api.Forbidden, "limits.hosts_per_credential")
		}
	}
	m := w.machine("", "9", "b")
	m.in(m.proves(byJWT("two", "")))
}

// TestProofAtOnce: of many who show one proof at once one gets a token.
func TestProofAtOnce(t *testing.T) {
	w := newIdentityWorld(t)
	key, m := sshKey(t), w.machine("web-1", "a", "boot-a")
	w.knows(line("web-1", key))
	p := m.bySSH(key)
	var mu sync.Mutex
	var wg sync.WaitGroup
	good := 0
	for range 8 {
		wg.Go(func() {
			if a := m.proves(p); a.status == 201 {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if good != 1 || len(w.short.List()) != 1 {
		t.Errorf("%d got a token, and there are %d", good, len(w.short.List()))
	}
}

// TestProofsOfStrangers: what is no proof costs its sender his share, and 32 KiB are read of it.
func TestProofsOfStrangers(t *testing.T) {
	w := newIdentityWorld(t)
	m := w.machine("web-1", "a", "boot-a")
	w.must(m.proves(&proof.Proof{Type: "ssh", Signature: strings.Repeat("x", 33<<10)}), 413, api.TooLarge)
	busy := 0
	for range 150 {
		a := m.proves(&proof.Proof{Type: "ssh", Nonce: "x"})
		if a.status == 503 {
			busy++
		} else if a.status != 403 {
			t.Fatal(a)
		}
	}
	if busy < 20 {
		t.Errorf("%d of 150 were sent away", busy)
	}
	w.must(w.do("POST", "/api/v1/challenge", "", json.RawMessage(`{}`)), 400, api.BadRequest, "instance")
}

// TestNoProofsTaken: a server without the sections says as before that a token is missing.
func TestNoProofsTaken(t *testing.T) {
	w := newWorld(t)
	m := w.machine("web-1", "a", "boot-a")
	w.must(m.proves(&proof.Proof{Type: "ssh"}), 401, api.Unauthorized, "join token")
}

// TestRemovedWhileParked: a host that is removed hears so within a second, also while it waits.
func TestRemovedWhileParked(t *testing.T) {
	w := newIdentityWorld(t)
	key, m := sshKey(t), w.machine("web-1", "a", "boot-a")
	w.knows(line("web-1", key))
	for name, cut := range map[string]func(){
		"removed": func() { w.must(w.do("DELETE", "/api/v1/hosts/web-1", w.op, nil), 204, "") },
		"cut off": func() {
			w.knows()
		},
	} {
		w.knows(line("web-1", key))
		m.in(m.proves(m.bySSH(key)))
		m.taken()
		etag := m.poll().header.Get("ETag")
		ended := make(chan answer)
		go func() { ended <- m.poll("If-None-Match", etag, "Prefer", "wait=50") }()
		w.parked(1)
		began := time.Now()
		cut()
		select {
		case a := <-ended:
			w.must(a, 401, api.Unauthorized)
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: after %s", name, took)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it waits on", name)
		}
	}
}

// TestMachinesAreForgotten: machines of a cloud that are gone leave nothing behind, also after a restart
// of the server; those that are there, and hosts without such a time, stay.
func TestMachinesAreForgotten(t *testing.T) {
	w := newIdentityWorld(t)
	key, kept := sshKey(t), w.machine("web-1", "e", "boot-s")
	w.knows(line("web-1", key))
	kept.in(kept.proves(kept.bySSH(key)))
	kept.taken()
	before := len(w.s.hosts.Names())
	later := w.standing()
	var all []*machine
	for i := range 10 {
		m := w.machine("", fmt.Sprint(i), fmt.Sprint("boot-", i))
		m.in(m.proves(byJWT(fmt.Sprint("vm", i), "")))
		m.taken()
		all = append(all, m)
	}
	forget := func() {
		t.Helper()
		if err := w.s.Retain.ForgetGone(t.Context(), w.s.Fleet.Gone); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	later(59 * time.Minute)
	forget()
	if n := len(w.s.hosts.Names()); n != before+10 {
		t.Errorf("%d hosts after 59 minutes", n)
	}
	all[0].in(all[0].proves(byJWT("vm0", "")))
	all[0].taken()
	w.restart()
	later(2 * time.Minute)
	forget()
	if n := len(w.s.hosts.Names()); n != before+1 {
		t.Errorf("%d hosts after 61 minutes: %v", n, w.s.hosts.Names())
	}
	all[0].taken()
	w.must(all[1].poll(), 401, api.Unauthorized)
	for _, is := range w.short.List() {
		if h := is.Grant.Host; h != all[0].host && h != "web-1" {
			t.Errorf("a token of %s stays", h)
		}
	}
	for _, owner := range w.roots() {
		if strings.HasPrefix(owner, "host:vm-") && owner != "host:"+all[0].host {
			t.Errorf("roots of %s stay", owner)
		}
	}
	w.wantEvents("host.removed", 9, false)
	all[1].host = ""
	all[1].in(all[1].proves(byJWT("vm1", ""))) // it comes back as another
	all[1].taken()
}
