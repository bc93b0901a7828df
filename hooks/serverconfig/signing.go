package serverconfig

import (
	"errors"
	"fmt"
	"time"

	"narwharf/signing"
	"narwharf/signing/external"
)

const (
	// signTimeout is how long sign_cmd has for one narinfo.
	signTimeout = 20 * time.Second
	// signAtOnce is how many of it run side by side, for each key.
	signAtOnce = 8
)

// checkSigning checks the section [signing].
func (c *Config) checkSigning() (err error) {
	parse := func(name string, texts []string) (keys []signing.PublicKey) {
		for _, t := range texts {
			k, e := signing.ParsePublicKey(t)
			if e != nil && err == nil {
				err = fmt.Errorf("signing.%s: %w", name, e)
			}
			keys = append(keys, k)
		}
		return keys
	}
	c.requireSig = parse("require_upload_sig", c.Signing.RequireUploadSig)
	c.signKeys = parse("sign_keys", c.Signing.SignKeys)
	switch s := &c.Signing; {
	case err != nil:
		return err
	case len(s.SignCommand) > 0 && s.SignCommand[0] == "":
		return errors.New("signing.sign_cmd: give a program and its arguments")
	case len(s.SignCommand) > 0 && len(s.SignKeys) == 0:
		return errors.New("signing.sign_keys is empty: name the public keys that signing.sign_cmd signs for")
	case len(s.SignKeys) > 0 && len(s.SignCommand) == 0:
		return errors.New("signing.sign_keys: there is no signing.sign_cmd that could sign for them; secret keys stand in signing.secret_key_files")
	}
	return nil
}

// LoadSigners reads the secret key files; keys that lie elsewhere are among what it returns.
func (c *Config) LoadSigners() (list []signing.Signer, err error) {
	keys, err := c.LoadKeys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		list = append(list, k)
	}
	for _, k := range c.signKeys {
		list = append(list, external.NewPool(&external.Command{Key: k, Argv: c.Signing.SignCommand, Timeout: signTimeout}, signAtOnce))
	}
	return list, nil
}

// ReloadSigners reads the keys that the file names now, for SIGHUP. The rest of
// the configuration is that of the start.
func (c *Config) ReloadSigners() ([]signing.Signer, error) {
	fresh, err := Load(c.path)
	if err != nil {
		return nil, err
	}
	return fresh.LoadSigners()
}
