package api

import (
	"crypto/sha256"
	"encoding/hex"
	"net/url"
	"regexp"
	"strings"
	"time"

	"narwharf/hooks/api/proof"
)

var instanceGrammar = regexp.MustCompile(`^[0-9a-f]{32}$`)

// ValidInstance tells whether s is an instance as agents draw them: 128 random
// bits in lower-case hex.
func ValidInstance(s string) bool { return instanceGrammar.MatchString(s) }

// MachineID is a machine's identity as it is shown to a server: a hash, since
// the content of /etc/machine-id is to stay on the host (machine-id(5)). It is
// 64 hex digits, and "" for an empty file or one of a machine that has not
// been set up yet.
func MachineID(machineIDFile []byte) string {
	id := strings.TrimSpace(string(machineIDFile))
	if id == "" || id == "uninitialized" {
		return ""
	}
	sum := sha256.Sum256([]byte("narwharf/machine\n" + id))
	return hex.EncodeToString(sum[:])
}

// Self is which machine a host is: what tells two of them apart that claim
// one host name. Its fields are those of Status of the same names.
type Self struct {
	Instance string
	Machine  string
	BootID   string
}

// query adds it to a query.
func (s Self) query(q url.Values) url.Values {
	for name, value := range map[string]string{"instance": s.Instance, "machine": s.Machine, "boot": s.BootID} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// Claim is a machine that uses the name of a host which another machine owns.
// It gets nothing until it is approved.
type Claim struct {
	Instance string    `json:"instance"` // "" from an agent that sends none
	Machine  string    `json:"machine,omitempty"`
	Since    time.Time `json:"since"`   // when it was first refused
	Address  string    `json:"address"` // from which it came last, as the server saw it
}

// Identity is the machine that owns a host's name.
type Identity struct {
	Instance string    `json:"instance"` // "" of an agent that sends none
	Machine  string    `json:"machine,omitempty"`
	Since    time.Time `json:"since"`
	Token    string    `json:"token,omitempty"` // name of the token that a join made for it
	Was      string    `json:"was,omitempty"`   // name that the same instance had before
	// Owner is the identity that the name belongs to where it came by a proof, as "ssh/SHA256:…";
	// "" with tokens.
	Owner  string `json:"owner,omitempty"`
	Cloned bool   `json:"cloned,omitempty"` // seen on two machines, or on two boots that take turns
}

// Ask is a machine that asks to be a host by an SSH host key of which nobody has said whose it is.
type Ask struct {
	Host     string    `json:"host"`
	Key      string    `json:"key"` // "SHA256:…"
	Channel  string    `json:"channel"`
	Instance string    `json:"instance"`
	Address  string    `json:"address"` // from which it came last, as the server saw it
	Since    time.Time `json:"since"`
	// RefusedBy is who has said that the key is not the host's, "" if nobody has.
	RefusedBy string `json:"refused_by,omitempty"`
}

// Join is the body of POST /api/v1/join, with a join token or a proof: a machine becomes a
// host of a channel, or gets another token for that.
type Join struct {
	Host     string       `json:"host"` // with a proof "": the server says which it is
	Channel  string       `json:"channel"`
	Instance string       `json:"instance"` // as in Status
	Machine  string       `json:"machine,omitempty"`
	Proof    *proof.Proof `json:"proof,omitempty"`
}

// Joined is the answer, 201.
type Joined struct {
	Host    string `json:"host"`
	Channel string `json:"channel"`
	// Token is the host's own from now on. It cannot be had again, but for some
	// minutes by the same machine in the same way, after which this one is void.
	Token string `json:"token"`
	// ExpiresIn is how many seconds it lasts; 0: for ever, as those for join tokens do. By a
	// proof another can be had at any time.
	ExpiresIn int `json:"expires_in,omitempty"`
}
