package fleet

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"narwharf/e2e"
	"narwharf/signing/access/awsiam"
)

// awsRegion is where the machines of the test stand.
const awsRegion = "eu-central-1"

// An aws pretends to be as much of AWS as a machine with a role meets: the metadata service of its
// own link, and the Security Token Service.
type aws struct {
	authority   *e2e.Authority
	credentials awsiam.Credentials

	mu    sync.Mutex
	asked int // how often STS was, with a signature that is good
}

// newAWS serves STS as the host of that name, on the CI machine: the server's machine finds it there
// and believes its certificate.
func newAWS(f *Fleet) *aws {
	f.T.Helper()
	a := &aws{authority: e2e.NewAuthority(f.T), credentials: awsiam.Credentials{AccessKeyID: "ASIAIOSFODNN7EXAMPLE", SecretAccessKey: "of-the-role/never-sent", SessionToken: "session//token=="}}
	name := "sts." + awsRegion + ".amazonaws.com"
	certificate, err := tls.LoadX509KeyPair(a.authority.Issue("sts", name))
	if err != nil {
		f.T.Fatal(err)
	}
	l, err := f.CI().Listen(443)
	if err != nil {
		f.T.Fatal(err)
	}
	serveHTTP(f.T, tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}}), http.HandlerFunc(a.identity))
	server := f.Server()
	server.Sh(`echo "$1 $2" >> /etc/hosts; echo "$3" >> /etc/ssl/certs/ca-certificates.crt`, ciAddress, name, read(f.T, a.authority.File))
	return a
}

func serveHTTP(t testing.TB, l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
}

// identity is STS's GetCallerIdentity. The signature is made again by the secret key, over what came.
func (a *aws) identity(w http.ResponseWriter, r *http.Request) {
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p, err := awsiam.Sign(a.credentials, awsRegion, r.Header.Get("X-Narwharf-Nonce"), r.Header.Get("X-Narwharf-Url"), date)
	if err != nil || !strings.HasSuffix(r.Header.Get("Authorization"), "Signature="+p.Signature) {
		http.Error(w, "SignatureDoesNotMatch", http.StatusForbidden)
		return
	}
	a.mu.Lock()
	a.asked++
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprint(w, `{"GetCallerIdentityResponse":{"GetCallerIdentityResult":{"Account":"123456789012","Arn":"arn:aws:sts::123456789012:assumed-role/web-host/i-0abc","UserId":"A:i-0abc"},"ResponseMetadata":{"RequestId":"r"}}}`)
}

// give gives a host the metadata service of a machine with the role web-host.
func (a *aws) give(h *Host) {
	h.T.Helper()
	h.Sh("ip addr add 169.254.169.254/32 dev lo")
	l, err := h.ListenAt("169.254.169.254:80")
	if err != nil {
		h.T.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /latest/api/token", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, "imds") })
	get := func(path, text string) {
		mux.HandleFunc("GET /latest/meta-data/"+path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "imds" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = fmt.Fprint(w, text)
		})
	}
	c := a.credentials
	get("iam/security-credentials/{$}", "web-host")
	get("iam/security-credentials/web-host", fmt.Sprintf(`{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":%q,"Token":%q,"Expiration":"2099-01-01T00:00:00Z"}`, c.AccessKeyID, c.SecretAccessKey, c.SessionToken))
	get("placement/region", awsRegion)
	serveHTTP(h.T, l, mux)
}

func (a *aws) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}
