package s3

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Keys are the credentials in a file, or those of the environment where name is "". A file
// is read again when it has changed. They are in no error and in no log.
//
// The file is what AWS's own tools take: lines aws_access_key_id = …,
// aws_secret_access_key = … and perhaps aws_session_token = …; of one profile.
func Keys(name string) (*credentials.Credentials, error) {
	if name == "" {
		id, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
		if id == "" || secret == "" {
			return nil, errors.New("there is no key for the bucket: name a file with it (storage.credentials_file), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
		}
		return credentials.NewStaticV4(id, secret, os.Getenv("AWS_SESSION_TOKEN")), nil
	}
	f := &keyFile{name: name}
	if _, err := f.Retrieve(); err != nil {
		return nil, err
	}
	return credentials.New(f), nil
}

// keyFile is a file with a key. Its methods are called by one at a time.
type keyFile struct {
	name     string
	modified time.Time
	value    credentials.Value
}

// RetrieveWithCredContext implements credentials.Provider.
func (f *keyFile) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return f.Retrieve()
}

// Retrieve implements credentials.Provider. One that cannot be read any more leaves the key
// that was known.
func (f *keyFile) Retrieve() (credentials.Value, error) {
	st, err := os.Stat(f.name)
	var text []byte
	if err == nil {
		text, err = os.ReadFile(f.name)
	}
	var v credentials.Value
	if err == nil {
		v, err = parseKey(text)
	}
	if err != nil {
		if f.value.AccessKeyID != "" {
			return f.value, nil
		}
		return v, fmt.Errorf("storage.credentials_file: %s: %w", f.name, err)
	}
	f.value, f.modified = v, st.ModTime()
	return v, nil
}

// IsExpired implements credentials.Provider.
func (f *keyFile) IsExpired() bool {
	st, err := os.Stat(f.name)
	return err == nil && !st.ModTime().Equal(f.modified)
}

func parseKey(text []byte) (v credentials.Value, err error) {
	v.SignerType = credentials.SignatureV4
	into := map[string]*string{"aws_access_key_id": &v.AccessKeyID, "aws_secret_access_key": &v.SecretAccessKey, "aws_session_token": &v.SessionToken}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		key, value, ok := strings.Cut(line, "=")
		to := into[strings.ToLower(strings.TrimSpace(key))]
		switch {
		case line == "", line[0] == '#', line[0] == ';', line[0] == '[', ok && to == nil:
		case !ok:
			return v, errors.New("a line is not of the form aws_access_key_id = …")
		case *to != "":
			return v, errors.New("it has more than one key: give a file with one profile")
		default:
			*to = strings.TrimSpace(value)
		}
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return v, errors.New("it lacks aws_access_key_id or aws_secret_access_key")
	}
	return v, lines.Err()
}
