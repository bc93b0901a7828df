package e2e

import (
	"fmt"
	"strings"
)

// A Config is what a test says in config.toml. A zero field is not written, so that the server's
// default holds.
type Config struct {
	Listen    []string
	DataDir   string
	PublicURL string

	StoreDir        string
	ServeStore      bool
	StoreRoot       string
	NarCacheSize    string // a TOML value
	Priority        int
	MaxNarSize      string // a TOML value
	NarGrace        string
	ScrubInterval   string
	AllowIncomplete bool

	SecretKeyFiles   []string
	SignUploads      *bool
	RequireUploadSig []string

	Anonymous []string // nil is not written, empty is `[]`

	BodyIdle string // [limits] body_idle
	FastPath *bool  // [limits] fast_path

	Upstreams []string // sections [[upstream]], lines of TOML
	Retention []string // lines of [retention]

	Limits  []string // further lines of [limits]
	Proxies []string // [access] trusted_proxies

	TLS  *Authority // [tls], with a certificate of its own
	MTLS bool       // and its certificates for clients, too
	More []string   // whole sections
}

// TOML prints the file.
func (c Config) TOML() string {
	var b strings.Builder
	line := func(key, value string) { fmt.Fprintf(&b, "%s = %s\n", key, value) }
	text := func(key, value string) {
		if value != "" {
			line(key, tomlString(value))
		}
	}
	line("listen", tomlList(c.Listen))
	text("data_dir", c.DataDir)
	text("public_url", c.PublicURL)

	b.WriteString("\n[cache]\n")
	text("store_dir", c.StoreDir)
	text("nar_grace", c.NarGrace)
	text("scrub_interval", c.ScrubInterval)
	text("store_root", c.StoreRoot)
	if c.ServeStore {
		line("serve_store", "true")
	}
	if c.NarCacheSize != "" {
		line("nar_cache_size", c.NarCacheSize)
	}
	if c.Priority != 0 {
		line("priority", fmt.Sprint(c.Priority))
	}
	if c.MaxNarSize != "" {
		line("max_nar_size", c.MaxNarSize)
	}
	if c.AllowIncomplete {
		line("allow_incomplete", "true")
	}

	b.WriteString("\n[signing]\n")
	line("secret_key_files", tomlList(c.SecretKeyFiles))
	if c.SignUploads != nil {
		line("sign_uploads", fmt.Sprint(*c.SignUploads))
	}
	if c.RequireUploadSig != nil {
		line("require_upload_sig", tomlList(c.RequireUploadSig))
	}

	b.WriteString("\n[access]\n")
	if c.Anonymous != nil {
		line("anonymous", tomlList(c.Anonymous))
	}
	if c.Proxies != nil {
		line("trusted_proxies", tomlList(c.Proxies))
	}
	b.WriteString("\n[limits]\n")
	for _, l := range c.Limits {
		b.WriteString(l + "\n")
	}
	text("body_idle", c.BodyIdle)
	if c.FastPath != nil {
		line("fast_path", fmt.Sprint(*c.FastPath))
	}
	if c.Retention != nil {
		b.WriteString("\n[retention]\n" + strings.Join(c.Retention, "\n") + "\n")
	}
	if c.TLS != nil {
		cert, key := c.TLS.server()
		fmt.Fprintf(&b, "\n[tls]\ncert = %q\nkey = %q\n", cert, key)
		if c.MTLS {
			line("client_ca", tomlString(c.TLS.File))
		}
	}
	for _, m := range c.More {
		b.WriteString("\n" + m + "\n")
	}
	for _, u := range c.Upstreams {
		b.WriteString("\n[[upstream]]\n" + u + "\n")
	}
	return b.String()
}

func tomlString(s string) string { return fmt.Sprintf("%q", s) }

func tomlList(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = tomlString(item)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
