package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// Unreached says why a server gave no answer, and what to look at.
func Unreached(base *url.URL, err error) error {
	if e := new(url.Error); errors.As(err, &e) {
		err = e.Err // without method and URL, which say less than base
	}
	what, port := "", base.Port()
	var dns *net.DNSError
	var record tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	switch text := err.Error(); {
	case errors.Is(err, syscall.ECONNREFUSED):
		what = "does narwharf serve run there, and does it listen on that port"
		if port == "" {
			what += " (the URL names none: narwharf serve says its own when it starts)"
		}
		what += "?"
	case errors.As(err, &dns) && dns.IsNotFound:
		what = "look at the name in the server's URL"
	case strings.Contains(text, "server gave HTTP response to HTTPS client") || errors.As(err, &record):
		what = "it speaks no TLS: the URL should begin with http://, unless that is another server's port"
	case errors.As(err, &authority) || errors.As(err, &name):
		what = "its certificate is not one that is trusted here for that name: give the authority's as --ca-file (ca_file), or use the name in the certificate"
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "readLoopPeekFailLocked"): // the latter spoke first
		what = "what answers there speaks no HTTP: look at the port"
	case base.Scheme == "http" && (errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)):
		what = "it ended the connection without an answer: if it speaks TLS, the URL should begin with https://"
	case errors.Is(err, os.ErrDeadlineExceeded) || os.IsTimeout(err):
		what = "it did not answer in time: look at the name, the port, and a firewall between"
	case errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH):
		what = "there is no way to it from here: look at the address and at the network"
	default:
		return fmt.Errorf("server %s: %w", base.Redacted(), err)
	}
	return fmt.Errorf("server %s: %w: %s", base.Redacted(), err, what)
}
