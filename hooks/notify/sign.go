package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"narwharf/hooks/api"
)

// ParseSecrets reads a file with secrets, one a line: "whsec_" and base64 of 24 to 64 bytes. Bodies
// are signed with each, so that a new one can come before the old one goes.
func ParseSecrets(text string) (secrets [][]byte, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		code, ok := strings.CutPrefix(line, "whsec_")
		secret, err := base64.StdEncoding.DecodeString(code)
		if !ok || err != nil || len(secret) < 24 || len(secret) > 64 {
			return nil, fmt.Errorf(`line %d is not "whsec_" and base64 of 24 to 64 bytes, as echo "whsec_$(openssl rand -base64 32)" makes it`, len(secrets)+1)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 || len(secrets) > 2 {
		return nil, fmt.Errorf("it has %d secrets: one, or two while one takes the place of another", len(secrets))
	}
	return secrets, nil
}

// sign is the header webhook-signature of a body: a signature by each secret.
func sign(secrets [][]byte, id string, at time.Time, body []byte) string {
	var list []string
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		list = append(list, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(list, " ")
}

// idOf names an event to a target: the same with each attempt, and another for another event, also
// where a restored backup gives its number once more.
func idOf(origin, target string, e *api.Event) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d %q", origin, target, e.ID, e.Time.UnixNano(), e.Kind))
	return "evt_" + hex.EncodeToString(sum[:16])
}
