package rights

import (
	"narwharf/hooks/api"
	"narwharf/hooks/intake"
	"narwharf/signing"
	"narwharf/signing/access/scope"
)

// What routes need.
var (
	Promotes      = scope.Needs{{Kind: scope.Promote, Where: scope.InPath}}
	PromotesPart  = scope.Needs{{Kind: scope.Promote, Where: scope.InPath, Part: true}}
	SendsManifest = scope.Needs{{Kind: scope.Push}, {Kind: scope.Promote, Where: scope.AnyChannel}}
	Collects      = scope.Needs{{Kind: scope.Operate, With: "dry_run=1"}, {Kind: scope.Admin}}
	Admins        = scope.Needs{{Kind: scope.Admin}}
	Reboots       = scope.Needs{{Kind: scope.Reboot, Where: scope.InBody}}
	Asks          = scope.Needs{{Kind: scope.Operate, Where: scope.AnyChannel}}
	ReadsAny      = scope.Needs{{Kind: scope.Read, Where: scope.AnyChannel}}
	JoinsOrProves = scope.Needs{{Kind: scope.Join, Where: scope.InBody, OrProof: true}}
)

// Reads is to look at what is of a channel.
func Reads(of scope.Where) scope.Needs { return scope.Needs{{Kind: scope.Read, Where: of}} }

// Looks is to see channels and their releases: what is served to whoever may pull, and what hosts are measured
// by that one may look at.
func Looks(of scope.Where) scope.Needs {
	return scope.Needs{{Kind: scope.Pull}, {Kind: scope.Read, Where: of}}
}

// Operates is to change what is of a channel.
func Operates(of scope.Where) scope.Needs { return scope.Needs{{Kind: scope.Operate, Where: of}} }

// Joins is to redeem a join token.
func Joins(of scope.Where) scope.Needs { return scope.Needs{{Kind: scope.Join, Where: of}} }

// Follows is to be the host in the path.
func Follows(of scope.Where) scope.Needs {
	return scope.Needs{{Kind: scope.Follow, Where: of, AsHost: true}}
}

// CheckNames refuses names in the path that nothing has.
func (r *Request) CheckNames() error {
	if name := r.Param("channel"); name != "" {
		if err := signing.CheckChannel(name); err != nil {
			return api.Errorf(api.BadRequest, "%v", err)
		}
	}
	if name := r.Param("host"); name != "" {
		return intake.CheckName(name)
	}
	return nil
}
