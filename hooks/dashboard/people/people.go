// Package people is the view of who may do what: tokens, rules, sessions, identities of machines. It lists
// and revokes; tokens are made by the command line, which shows them once.
package people

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"narwharf/hooks/api"
	"narwharf/hooks/api/login"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/dashboard/table"
	"narwharf/hooks/reply"
	"narwharf/hooks/rights"
)

//go:embed files
var files embed.FS

// Credentials are what the view asks of those who keep them.
type Credentials interface {
	Tokens(ctx context.Context) ([]Token, error)
	// Revoke ends a token by its id. The audit log says for whom the context is.
	Revoke(ctx context.Context, id string) error
	Rules() []Rule
	// RevokeRule ends the tokens that a rule gave, by the name of its issuer, a slash and its own.
	RevokeRule(ctx context.Context, name string) error
}

// Token is one without its secret.
type Token struct {
	ID, Name, State string // active, revoked, expired, used
	Scopes          []string
	Created         time.Time
	Expires         *time.Time
	By, Host        string
	Kind, Subject   string // of one that ends soon: whose it is
	Uses, Used      int    // of a join token
}

// Rule is one of the configuration.
type Rule struct {
	Name   string // with its issuer's
	Claims []string
	Scopes []string
	TTL    time.Duration
}

// Active tells whether a token can be used.
func (t *Token) Active() bool { return t.State == "active" }

type room struct{ of Credentials }

const home = "/ui/access"

// Room makes the view.
func Room(c Credentials) *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	r := &room{c}
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: home, Nav: "Access", Needs: rights.Admins, Own: true, Load: r.view},
	}, Actions: []frame.Action{
		{Path: "/ui/access/tokens/{id}/revoke", Needs: rights.Admins, Ask: r.askToken, Do: r.revokeToken},
		{Path: "/ui/access/rules/{issuer}/{rule}/revoke", Needs: rights.Admins, Ask: r.askRule, Do: r.revokeRule},
		{Path: "/ui/access/sessions/{id}/end", Needs: rights.Admins, Ask: r.askSession, Do: r.endSession},
	}}
}

// perPage is how many tokens a page has.
const perPage = 100

// view is what the page shows.
type view struct {
	All, Text string // filters
	Tokens    []Token
	Pages     table.Pages
	Sort      table.Sort
	Rules     []Rule
	Sessions  []login.Session
}

func (o *room) view(r *frame.Request) (*frame.Page, error) {
	v := &view{All: r.Query.Get("all"), Text: r.Query.Get("q"), Rules: o.of.Rules(), Sort: table.By(home, r.Query, "name", "created", "expires")}
	list, err := o.of.Tokens(r.Context())
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(t Token) bool {
		text := strings.Join(append([]string{t.ID, t.Name, t.Host, t.Subject}, t.Scopes...), "\n")
		return v.All != "1" && !t.Active() || !strings.Contains(strings.ToLower(text), strings.ToLower(v.Text))
	})
	slices.SortStableFunc(list, func(a, b Token) int {
		switch v.Sort.By {
		case "created":
			return v.Sort.Order(a.Created.Compare(b.Created))
		case "expires":
			return v.Sort.Order(ends(&a).Compare(ends(&b)))
		}
		return v.Sort.Order(cmp.Compare(a.Name, b.Name))
	})
	v.Pages = table.Of(home, r.Query, len(list), perPage)
	v.Tokens = table.Slice(v.Pages, list)
	if v.Sessions, err = sessions(r); err != nil {
		return nil, err
	}
	v.Sessions = v.Sessions[:min(len(v.Sessions), 500)]
	return &frame.Page{Title: "Access", Body: "access", Data: v}, nil
}

// ends is when a token ends; one that does not does so last.
func ends(t *Token) time.Time {
	if t.Expires == nil {
		return time.Unix(1<<40, 0)
	}
	return *t.Expires
}

func sessions(r *frame.Request) ([]login.Session, error) {
	var answer struct {
		Sessions []login.Session `json:"sessions"`
	}
	err := r.Get("/api/v1/sessions", &answer)
	return answer.Sessions, err
}

func (o *room) askToken(r *frame.Request) (*frame.Question, error) {
	list, err := o.of.Tokens(r.Context())
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(t Token) bool { return t.ID == r.Param("id") })
	if i < 0 {
		return nil, api.Errorf(api.NotFound, "There is no such token, or it has ended.")
	}
	t := &list[i]
	q := &frame.Question{
		Title: "Revoke a token", Button: "Revoke it", Danger: true, Back: home, Text: "Whoever has it can do nothing with it within seconds. It cannot be taken back: a new one has another secret.",
		Lines: []string{t.Name + " (" + t.ID + ")", strings.Join(t.Scopes, ", ")},
	}
	if t.Host != "" {
		q.Lines = append(q.Lines, "host "+t.Host+" has to join again")
	}
	if r.Who.TokenID == t.ID {
		q.Lines = append(q.Lines, "it is the one that you use now")
	}
	if !t.Active() {
		q.Stale = "It is " + t.State + " already."
	}
	return q, nil
}

// whom is a context that knows for whom something is changed.
func whom(r *frame.Request) context.Context {
	return audit.For(r.Context(), reply.Actor(&r.Who), "")
}

func (o *room) revokeToken(r *frame.Request, _ *frame.Answer) (string, error) {
	return home, o.of.Revoke(whom(r), r.Param("id"))
}

func (o *room) askRule(r *frame.Request) (*frame.Question, error) {
	name := r.Param("issuer") + "/" + r.Param("rule")
	if !slices.ContainsFunc(o.of.Rules(), func(rule Rule) bool { return rule.Name == name }) {
		return nil, api.Errorf(api.NotFound, "There is no rule %s.", name)
	}
	return &frame.Question{
		Title: "Revoke what a rule gave", Button: "Revoke them", Danger: true, Back: home, Lines: []string{name},
		Text: "All tokens and sessions that the rule gave end. Whoever still fits it gets another: take it out of the configuration to end that.",
	}, nil
}

func (o *room) revokeRule(r *frame.Request, _ *frame.Answer) (string, error) {
	return home, o.of.RevokeRule(whom(r), r.Param("issuer")+"/"+r.Param("rule"))
}

func (o *room) askSession(r *frame.Request) (*frame.Question, error) {
	list, err := sessions(r)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(list, func(s login.Session) bool { return s.ID == r.Param("id") })
	if i < 0 {
		return nil, api.Errorf(api.NotFound, "There is no such session, or it has ended.")
	}
	return &frame.Question{
		Title: "End a session", Button: "End it", Back: home, Text: "The browser has to log in again.",
		Lines: []string{fmt.Sprintf("%s (%s)", list[i].Name, list[i].Subject), list[i].From},
	}, nil
}

func (o *room) endSession(r *frame.Request, _ *frame.Answer) (string, error) {
	return home, r.Do("DELETE", "/api/v1/sessions/"+url.PathEscape(r.Param("id")), nil, nil)
}
