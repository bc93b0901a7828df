// Command issuer is an OpenID provider of other people's making, for tests: the example server of
// github.com/zitadel/oidc, with TLS and with a client that may do what ours does. It is a module of
// its own, so that nothing of it is in ours.
//
//	issuer DIR AUDIENCE
//
// writes its certificate to DIR/ca.pem, prints its URL, and serves until stdin ends. The client
// "narwharf" has no secret and logs people in by code or by device; the service user sid1, with
// the secret "verysecret", gets a JWT for AUDIENCE.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// client lets a client of the example use each flow, and puts what the scopes ask for into ID tokens.
type client struct{ op.Client }

func (client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeDeviceCode, oidc.GrantTypeClientCredentials}
}
func (client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeJWT }
func (client) IDTokenUserinfoClaimsAssertion() bool { return true }

// store is the example's, with those clients.
type store struct {
	*storage.Storage
	users    storage.UserStore
	audience string
}

// CompleteDeviceAuthorization is told a name, and what it keeps is an id.
func (s store) CompleteDeviceAuthorization(ctx context.Context, code, name string) error {
	return s.Storage.CompleteDeviceAuthorization(ctx, code, s.users.GetUserByUsername(name).ID)
}

func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	c, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

func (s store) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	c, err := s.Storage.ClientCredentials(ctx, id, secret)
	if err != nil {
		return nil, err
	}
	return client{c}, nil
}

func (s store) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	return &oidc.JWTTokenRequest{Subject: id, Audience: []string{s.audience}, Scopes: scopes}, nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: issuer DIR AUDIENCE")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	pair, err := certificate(filepath.Join(os.Args[1], "ca.pem"))
	if err != nil {
		log.Fatal(err)
	}
	url := "https://" + l.Addr().String()
	storage.RegisterClients(storage.NativeClient("narwharf", os.Args[2]+"/ui/callback"))
	users := storage.NewUserStore(url)
	s := store{storage.NewStorage(users), users, os.Args[2]}
	srv := &http.Server{
		Handler:           exampleop.SetupServer(url, s, slog.New(slog.NewTextHandler(os.Stderr, nil)), false),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}},
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(url)
	log.Fatal(srv.ServeTLS(l, "", ""))
}

// certificate makes one for this machine, and its own authority.
func certificate(file string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(file, text, 0o600)
}
