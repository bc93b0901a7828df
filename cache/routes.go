package cache

import (
	"regexp"
	"strings"

	"narwharf/cache/local"
	"narwharf/cache/narfile"
	"narwharf/signing/access/scope"
)

// A Route is one row of the URL grammar. The router, the access check, the
// labels of the metrics and the tests all read the table below and nothing
// else, so that they cannot disagree on what a URL is.
type Route struct {
	// Name labels the route in metrics and logs.
	Name string
	// Pattern is the shape, with a name for each parameter; a row that
	// shares its pattern with another is told apart by Suffix and Valid.
	Pattern string
	// Suffix is the end of the last segment and no part of the parameter.
	Suffix string
	// Valid is the grammar of the parameters, joined with "/" and with
	// Suffix cut off; nil where there are none. It is matched against the
	// decoded path: "!" and "%21" are one name.
	Valid *regexp.Regexp
	// Read is what GET and HEAD need, Write what PUT does; nil: the route takes none.
	Read, Write scope.Needs
	// Immutable tells that what is found there never changes: proxies may keep it.
	Immutable bool
	// Costly tells that the answer may take much processor time, of which each client
	// has so much.
	Costly bool
	// Hint ends the 404 for a name outside the grammar.
	Hint string
}

// Nix's base 32 leaves out e, o, u and t. See src/libutil/base-nix-32.cc.
const (
	nix32     = `[0-9abcdfghijklmnpqrsvwxyz]`
	storeName = nix32 + `{32}-[0-9a-zA-Z+\-._?=]{1,211}`
)

var (
	hashGrammar  = regexp.MustCompile(`^` + nix32 + `{32}$`)
	localGrammar = regexp.MustCompile(`^` + nix32 + `{32}-` + nix32 + `{52}$`)
	drvGrammar   = regexp.MustCompile(`^` + storeName + `$`)
	debugGrammar = regexp.MustCompile(`^[0-9a-f]{8,128}(\.debug)?$`)
	serveGrammar = regexp.MustCompile(`^` + nix32 + `{32}/[^\x00]*$`)
	// An output's name is bounded so that all of it fits into a file name (255
	// bytes); a file of the store does not start with a dot.
	doiGrammar   = regexp.MustCompile(`^sha256:[0-9a-f]{64}![0-9a-zA-Z+\-._?=]{1,170}$`)
	traceGrammar = regexp.MustCompile(`^` + storeName + `/[0-9a-zA-Z+\-_?=][0-9a-zA-Z+\-._?=]{0,210}$`)
)

const narHint = "a NAR is named nar/<52 characters of nix32>.nar[.suffix]"

// Routes is the URL grammar of the cache.
var Routes = []Route{
	{Name: "landing", Pattern: "/", Read: scope.NeedsPull},
	{Name: "nix-cache-info", Pattern: "/nix-cache-info", Read: scope.NeedsNothing, Write: scope.NeedsPush},
	{Name: "narinfo", Pattern: "/:object", Suffix: ".narinfo", Valid: hashGrammar, Read: scope.NeedsPull, Write: scope.NeedsPush,
		Hint: "a narinfo is named by the 32 characters of its store path's hash"},
	{Name: "ls", Pattern: "/:object", Suffix: ".ls", Valid: hashGrammar, Read: scope.NeedsPull, Write: scope.NeedsPush, Costly: true,
		Hint: "a listing is named by the 32 characters of its store path's hash"},
	{Name: "nar", Pattern: "/nar/:file", Valid: narfile.Grammar, Read: scope.NeedsPull, Write: scope.NeedsPush, Immutable: true,
		Hint: narHint},
	{Name: "packed-nar", Pattern: "/nar/:file", Suffix: local.CompressedSuffix, Valid: localGrammar, Read: scope.NeedsPull, Immutable: true,
		Hint: narHint},
	{Name: "plain-nar", Pattern: "/nar/:file", Suffix: local.PlainSuffix, Valid: localGrammar, Read: scope.NeedsPull, Immutable: true, Costly: true,
		Hint: narHint},
	{Name: "log", Pattern: "/log/:drv", Valid: drvGrammar, Read: scope.NeedsPull, Write: scope.NeedsPush, Costly: true,
		Hint: "a log is named by its derivation, log/<hash>-<name>.drv"},
	{Name: "debuginfo", Pattern: "/debuginfo/:id", Valid: debugGrammar, Read: scope.NeedsPull, Write: scope.NeedsPush,
		Hint: "debug information is named by a build id in hex"},
	{Name: "realisation", Pattern: "/realisations/:id", Suffix: ".doi", Valid: doiGrammar, Read: scope.NeedsPull, Write: scope.NeedsPush,
		Hint: "a realisation is named realisations/sha256:<64 hex>!<output>.doi"},
	{Name: "build-trace", Pattern: "/build-trace-v2/:drv/:output", Suffix: ".doi", Valid: traceGrammar, Read: scope.NeedsPull, Write: scope.NeedsPush,
		Hint: "a build trace entry is named build-trace-v2/<hash>-<name>.drv/<output>.doi"},
	{Name: "serve", Pattern: "/serve/:hash/*", Valid: serveGrammar, Read: scope.NeedsPull, Costly: true,
		Hint: "a file is named serve/<32 characters of its store path's hash>/<its name in there>"},
	{Name: "pubkey", Pattern: "/pubkey", Read: scope.NeedsNothing},
	{Name: "version", Pattern: "/version", Read: scope.NeedsNothing},
	{Name: "healthz", Pattern: "/healthz", Read: scope.NeedsNothing},
	{Name: "readyz", Pattern: "/readyz", Read: scope.NeedsNothing},
	{Name: "metrics", Pattern: "/metrics", Read: scope.Needs{{Kind: scope.Metrics}}},
}

// match finds the row for a path, and the name that its parameters make, joined with
// "/" and without the suffix. A nil row means that there is none; hint then says what
// would be a name where the path begins like those of a row.
func match(path string) (row *Route, name, hint string) {
	for i := range Routes {
		r := &Routes[i]
		prefix, _, named := strings.Cut(r.Pattern, ":")
		rest, begins := strings.CutPrefix(path, prefix)
		name, ends := strings.CutSuffix(rest, r.Suffix)
		switch {
		case !begins || !ends || !named && rest != "":
		case !named || r.Valid.MatchString(name):
			return r, name, ""
		default:
			hint = r.Hint
		}
	}
	return nil, "", hint
}
