package scope

import "strings"

// Where says which channel a need is about.
type Where uint8

// The places. None is for scopes without a channel, and for operate of all of them.
const (
	None       Where = iota
	InPath           // {channel} in the path
	InQuery          // ?channel=
	OfHost           // that of the {host} in the path
	OfHostLog        // ?channel=, or else that of the {host} in the path
	InBody           // in the body, of which nothing is read before the kind is checked, and little before the channel is
	OfAll            // ?channel=, or else all channels
	OfList           // ?channel=, or else any; what is answered is of the channels that the caller may see
	AnyChannel       // any will do
	OfAlarm          // that of the {alarm} in the path, which is looked at when the kind is checked
)

var wheres = [...]string{
	InPath: "{channel}", InQuery: "{channel of the query}", OfHost: "{channel of the host}",
	OfHostLog: "{channel of the query, or of the host}", InBody: "{channel of the body}",
	OfAll: "{channel of the query, or *}", OfList: "{channel of the query, or any}", AnyChannel: "{any channel}", OfAlarm: "{channel of the alarm}",
}

// Need is what a request needs before anything of its body is read. The zero Need is met by nobody.
type Need struct {
	Kind  Kind
	Where Where
	// Part: a scope for some targets of the channel will do here; what it may change is looked at later.
	Part bool
	// AsHost: a credential that is of one host is refused for another than that in the path.
	AsHost bool
	// OrProof: who shows no credential may prove in the body who he is, where the server takes proofs.
	OrProof bool
	// With, if it is not "", is the part of the query with which alone this is enough: "dry_run=1".
	With string
	// Public: everybody may, and no credential is looked at. The rest is empty.
	Public bool
}

// Needs are those of a route; one of them is enough, and a denial tells of the first.
type Needs []Need

// The needs of most routes.
var (
	NeedsNothing = Needs{{Public: true}}
	NeedsPull    = Needs{{Kind: Pull}}
	NeedsPush    = Needs{{Kind: Push}}
)

// String is as docs/openapi.json has it.
func (n Need) String() string {
	if n.Public {
		return ""
	}
	text := n.Kind.String()
	if n.Where != None {
		text += ":" + wheres[n.Where]
	}
	if n.Part {
		text += " or targets of it"
	}
	if n.AsHost {
		text += " as {host}"
	}
	if n.OrProof {
		text += " or a proof in the body"
	}
	if n.With != "" {
		text += " with ?" + n.With
	}
	return text
}

// Is reports whether the needs are valid: a route without is a mistake.
func (n Needs) Is() bool {
	for _, need := range n {
		if need.Public && (len(n) > 1 || need != Need{Public: true}) || !need.Public && !need.Kind.exists() || need.Kind.hasGlob() == (need.Where == None) && need.Kind != Operate {
			return false
		}
	}
	return len(n) > 0
}

// String lists them.
func (n Needs) String() string {
	words := make([]string, len(n))
	for i := range n {
		words[i] = n[i].String()
	}
	return strings.Join(words, ", or ")
}
