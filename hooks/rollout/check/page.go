package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	maxRedirects = 5
	maxHead      = 64 << 10 // of an answer's headers
	maxWords     = 1 << 10  // of the page of a service that is not well
)

// client is for all checks. Connections are not kept: what was well half a minute ago says
// nothing of now.
var client = &http.Client{
	Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, MaxResponseHeaderBytes: maxHead,
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: time.Minute,
	},
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if from := via[0].URL; len(via) > maxRedirects || req.URL.Scheme != from.Scheme || req.URL.Host != from.Host {
			return http.ErrUseLastResponse
		}
		return nil
	},
}

// page is a URL that has to answer 2xx.
type page struct {
	spec *Spec
	url  string
}

func newPage(s *Spec) (asker, error) {
	u, err := parseURL("url", s.URL)
	if err != nil {
		return nil, err
	}
	return &page{s, u.String()}, nil
}

func (p *page) ask(ctx context.Context, _ *About) (Said, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return None, err.Error()
	}
	resp, err := p.spec.do(req)
	var here *os.PathError
	switch {
	case errors.As(err, &here): // our own token file
		return None, err.Error()
	case err != nil:
		return No, said(ctx, err, p.spec.Timeout)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 == 2 {
		return Yes, resp.Status
	}
	return No, words(resp)
}

// do sends a request of a check.
func (s *Spec) do(req *http.Request) (*http.Response, error) {
	token, err := s.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", "narwharf-check")
	return client.Do(req)
}

// words says of an answer that is none what it is: its status, where it leads, and what the
// page begins with.
func words(resp *http.Response) string {
	text := resp.Status
	if to, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 {
		return fmt.Sprintf("%s: it redirects to %s, and is not followed there: name the URL that answers", text, to.Redacted())
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxWords)) // the status has been said
	if page := strings.Join(strings.Fields(string(body)), " "); page != "" {
		text += ": " + page
	}
	return text
}

// said is why there is no answer.
func said(ctx context.Context, err error, timeout time.Duration) string {
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Sprintf("no answer in %s", timeout)
	}
	var e *url.Error
	if errors.As(err, &e) {
		err = e.Err // its URL is in the configuration
	}
	return err.Error()
}
