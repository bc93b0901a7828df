// Package proof is what a machine without a token says of itself when it joins, as it goes over the wire.
package proof

// Challenge is the body of POST /api/v1/challenge: who wants to prove who it is.
type Challenge struct {
	Host     string `json:"host"` // "": the server says which it is
	Instance string `json:"instance"`
}

// Challenged is the answer.
type Challenged struct {
	Nonce     string `json:"nonce"`
	ExpiresIn int    `json:"expires_in"` // seconds
	// URL is the server's public_url, which proofs are over. To sign it because a server says so
	// would be to sign that of another.
	URL string `json:"url"`
}

// The types of proof.
const (
	SSH  = "ssh"
	AWS  = "aws"
	OIDC = "oidc"
)

// Proof is how a machine without a token says who it is.
type Proof struct {
	Type  string `json:"type"`
	Nonce string `json:"nonce,omitempty"` // of a challenge for the same host and instance; not with oidc

	// Signature is, with ssh, that of ssh-keygen -Y sign over the text that package hostkey has;
	// with aws, that of the request to STS that package awsiam has, in hex.
	Signature string `json:"signature,omitempty"`

	Region       string `json:"region,omitempty"` // of aws, as are the following
	Date         string `json:"date,omitempty"`
	AccessKeyID  string `json:"access_key_id,omitempty"`
	SessionToken string `json:"session_token,omitempty"`

	Token string `json:"token,omitempty"` // of oidc: the JWT
}
