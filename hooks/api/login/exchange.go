package login

// Words of RFC 8693, by which a JWT is exchanged for a token.
const (
	GrantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	TypeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	TypeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
)

// Token is what a JWT is exchanged for: RFC 8693, 2.2.1.
type Token struct {
	Secret     string `json:"access_token"`
	IssuedType string `json:"issued_token_type"` // TypeAccessToken
	Type       string `json:"token_type"`        // "Bearer"; it is a netrc password as well
	ExpiresIn  int64  `json:"expires_in"`        // seconds
	Scope      string `json:"scope"`             // words with spaces between them
}
