// Package location reads where files lie in a bucket, as Nix and people write it:
//
//	s3://bucket/prefix?endpoint=https://s3.example.org&region=eu-central-1
//
// endpoint is a URL, or a host (then https, or what scheme=http says); without one it is
// Amazon's of the region. Nothing secret stands in it.
package location

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Location is a bucket, and a folder in it.
type Location struct {
	Bucket   string
	Prefix   string   // "" or with a slash at its end
	Endpoint *url.URL // scheme and host alone
	Region   string   // "us-east-1" if nothing is said, as in Nix
}

// Scheme begins a location.
const Scheme = "s3://"

// Parse reads a location. An error says what to write.
func Parse(text string) (*Location, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || !strings.HasPrefix(text, Scheme):
		return nil, fmt.Errorf("%q is not of the form s3://bucket/prefix?endpoint=https://host&region=name", text)
	case u.User != nil:
		return nil, errors.New("a key does not go into the URL: it comes from credentials_file, or from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	case u.Host == "" || u.Port() != "":
		return nil, fmt.Errorf("%q names no bucket: s3://bucket/prefix?endpoint=https://host", text)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	known := []string{"endpoint", "region", "scheme"}
	for key, values := range q {
		if !slices.Contains(known, key) || len(values) != 1 {
			return nil, fmt.Errorf("%q: %s: it takes endpoint, region and scheme, once each", text, key)
		}
	}
	l := &Location{Bucket: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: q.Get("region")}
	if l.Region == "" {
		l.Region = "us-east-1"
	}
	for part := range strings.SplitSeq(l.Prefix, "/") {
		if l.Prefix != "" && (part == "" || strings.HasPrefix(part, ".")) {
			return nil, fmt.Errorf("%q: the prefix has a part that is empty or begins with a dot", text)
		}
	}
	if l.Prefix != "" {
		l.Prefix += "/"
	}
	l.Endpoint, err = endpoint(q.Get("endpoint"), q.Get("scheme"), l.Region)
	return l, err
}

func endpoint(text, scheme, region string) (*url.URL, error) {
	if text == "" {
		text = "s3." + region + ".amazonaws.com"
	}
	if scheme == "" {
		scheme = "https"
	}
	if !strings.Contains(text, "://") {
		text = scheme + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("endpoint: %q is not of the form https://host or http://host:port", text)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// String is the location as Nix takes it.
func (l *Location) String() string {
	return Scheme + l.Bucket + strings.TrimSuffix("/"+l.Prefix, "/") + "?endpoint=" + l.Endpoint.String() + "&region=" + l.Region
}
