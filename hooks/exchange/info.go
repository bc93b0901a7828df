package exchange

import (
	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/signing/access"
)

// Info is how one can log in, and who somebody is already.
func Info(issuers []login.Issuer, who *access.Principal, actor api.Actor) login.Info {
	info := login.Info{Issuers: append([]login.Issuer{}, issuers...)}
	if who.Credential != access.Valid {
		return info
	}
	info.You = &login.You{Credential: actor.Credential, Name: actor.Name, Subject: actor.Subject, Host: who.Host, Ends: who.Ends, Scopes: []string{}}
	for _, sc := range who.Scopes {
		info.You.Scopes = append(info.You.Scopes, sc.String())
	}
	return info
}
