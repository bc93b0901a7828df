package serverconfig

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"narwharf/hooks/configfile"
	"narwharf/hooks/notify"
)

// Notify is a section [[notify]]: who is told what happens.
type Notify struct {
	Name             string   `toml:"name"`
	URL              string   `toml:"url"`
	URLFile          string   `toml:"url_file"`
	Format           string   `toml:"format"`
	Alarms           bool     `toml:"alarms"`
	Events           []string `toml:"events"`
	Channels         []string `toml:"channels"`
	SecretFile       string   `toml:"secret_file"`
	PrivateAddresses bool     `toml:"private_addresses"`
}

// checkNotify checks the sections [[notify]]. Their files are read by NotifyTargets.
func (c *Config) checkNotify() error {
	seen := make(map[string]bool)
	for i := range c.Notify {
		n := &c.Notify[i]
		if notify.CheckName(n.Name) != nil {
			return fmt.Errorf("notify: section %d needs a name of 1 to 63 of a to z, 0 to 9 and -, and it is %q", i+1, n.Name)
		}
		if seen[n.Name] {
			return fmt.Errorf("notify %s: it is there twice", n.Name)
		}
		seen[n.Name] = true
		if err := c.checkTarget(n); err != nil {
			return fmt.Errorf("notify %s: %w", n.Name, err)
		}
	}
	return nil
}

func (c *Config) checkTarget(n *Notify) error {
	switch {
	case (n.URL == "") == (n.URLFile == ""):
		return errors.New("one of url and url_file says where it is")
	case !n.Alarms && len(n.Events) == 0:
		return errors.New(`it would never be told anything: say alarms = true, or events = ["channel.promoted"], or both`)
	case n.Format != "" && n.Format != notify.JSON && n.Format != notify.Slack:
		return fmt.Errorf("format: %q is neither %q nor %q", n.Format, notify.JSON, notify.Slack)
	}
	for name, globs := range map[string][]string{"events": n.Events, "channels": n.Channels} {
		for _, glob := range globs {
			if _, err := path.Match(glob, ""); err != nil || glob == "" {
				return fmt.Errorf(`%s: %q is no pattern: write a name, with * for a part of it`, name, glob)
			}
		}
	}
	if n.URL != "" {
		if _, err := n.parse(n.URL); err != nil {
			return fmt.Errorf("url: %w", err)
		}
	}
	for name, file := range map[string]*string{"url_file": &n.URLFile, "secret_file": &n.SecretFile} {
		if configfile.Abs(c.path, file); *file != "" {
			if err := configfile.CheckSecret(*file, c.AllowReadableSecrets, c.path); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// parse reads the URL of a target. Errors do not have it: it may be a secret.
func (n *Notify) parse(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "":
		return nil, errors.New("it is no URL like https://hooks.example.org/path, without user, password and fragment")
	case u.Scheme == "https", u.Scheme == "http" && n.PrivateAddresses:
		return u, nil
	case u.Scheme == "http":
		return nil, errors.New("it is http: use https, or say private_addresses = true if it is inside your network")
	}
	return nil, fmt.Errorf("%q is neither https nor http", u.Scheme)
}

// NotifyTargets reads the files of [[notify]].
func (c *Config) NotifyTargets() (list []notify.Target, err error) {
	for i := range c.Notify {
		t, err := c.Notify[i].target()
		if err != nil {
			return nil, fmt.Errorf("notify %s: %w", c.Notify[i].Name, err)
		}
		list = append(list, t)
	}
	return list, nil
}

func (n *Notify) target() (t notify.Target, err error) {
	t = notify.Target{Name: n.Name, Format: n.Format, Alarms: n.Alarms, Events: n.Events, Channels: n.Channels, Private: n.PrivateAddresses}
	if t.Format == "" {
		t.Format = notify.JSON
	}
	where, from := n.URL, "url"
	if n.URLFile != "" {
		text, err := os.ReadFile(n.URLFile)
		if err != nil {
			return t, fmt.Errorf("url_file: %w", err)
		}
		where, from = string(text), "url_file: "+n.URLFile
	}
	if t.URL, err = n.parse(where); err != nil {
		return t, fmt.Errorf("%s: %w", from, err)
	}
	if n.SecretFile == "" {
		return t, nil
	}
	text, err := os.ReadFile(n.SecretFile)
	if err != nil {
		return t, fmt.Errorf("secret_file: %w", err)
	}
	if t.Secrets, err = notify.ParseSecrets(string(text)); err != nil {
		return t, fmt.Errorf("secret_file: %s: %w", n.SecretFile, err)
	}
	return t, nil
}
