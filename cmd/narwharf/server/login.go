package server

import "narwharf/hooks/api/login"

// logins are the issuers by which one can log in.
func (d *DataDir) logins() (list []login.Issuer) {
	for _, c := range d.Config.Access.OIDC {
		is := login.Issuer{Name: c.Name, URL: c.Issuer, Audience: c.Audience, ClientID: c.ClientID, Flows: []string{login.JWT}}
		switch {
		case c.ClientID == "":
		case c.ClientSecretFile == "":
			is.Flows = append(is.Flows, login.Device, login.Code)
		default: // a program on somebody's laptop has no secret
			is.Flows = append(is.Flows, login.Code)
		}
		list = append(list, is)
	}
	return list
}
