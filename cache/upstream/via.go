package upstream

import (
	"context"
	"slices"
	"strings"
)

// Each request to an upstream says by Via (RFC 9110, 7.6.3) which caches of our kind it
// has come through. Other proxies add entries of theirs, which do not count.

const (
	viaMark = "narwharf-"
	maxHops = 3
)

// came is how a request came to us.
type came struct {
	via     []string // the entries of caches like us, oldest first
	ownOnly bool
}

func (c came) has(id string) bool { return slices.Contains(c.via, viaMark+id) }

type cameKey struct{}

func cameBy(ctx context.Context) came {
	c, _ := ctx.Value(cameKey{}).(came)
	return c
}

// Came notes by which caches a request has come, from its Via. answer is what the reply says in the same
// header, "" if the request came by none.
func (us *Upstreams) Came(ctx context.Context, via []string) (_ context.Context, answer string) {
	if us == nil || len(via) == 0 {
		return ctx, ""
	}
	var c came
	for entry := range strings.SplitSeq(strings.Join(via, ","), ",") {
		// "1.1 narwharf-0123456789abcdef", perhaps with a comment
		if words := strings.Fields(entry); len(words) >= 2 && strings.HasPrefix(words[1], viaMark) {
			if c.via = append(c.via, words[1]); len(c.via) > maxHops {
				break
			}
		}
	}
	if len(c.via) == 0 {
		return ctx, ""
	}
	c.ownOnly = len(c.via) >= maxHops || c.has(us.id)
	return context.WithValue(ctx, cameKey{}, c), us.viaEntry(nil)
}

// viaEntry is the value of Via in a request that goes on, or in a reply.
func (us *Upstreams) viaEntry(via []string) string {
	var text strings.Builder
	for _, entry := range via {
		text.WriteString("1.1 " + entry + ", ")
	}
	return text.String() + "1.1 " + viaMark + us.id
}

// idIn is the id of the last cache of our kind in a Via, "" if there is none.
func idIn(via []string) (id string) {
	for entry := range strings.SplitSeq(strings.Join(via, ","), ",") {
		if words := strings.Fields(entry); len(words) >= 2 {
			if rest, ok := strings.CutPrefix(words[1], viaMark); ok {
				id = rest
			}
		}
	}
	return id
}
