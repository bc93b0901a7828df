// Package joining is the view of machines that ask to be hosts: by SSH host keys of which nobody has said whose they are, and
// by names that other machines have. Who may operate their channels says yes or no.
package joining

import (
	"embed"
	"fmt"
	"io/fs"
	"net/url"

	"narwharf/hooks/api"
	"narwharf/hooks/audit"
	"narwharf/hooks/dashboard/frame"
	"narwharf/hooks/rights"
	"narwharf/signing/access/scope"
)

//go:embed files
var files embed.FS

// Home is where the list is.
const Home = "/ui/asks"

// Room makes the view and its buttons.
func Room() *frame.Room {
	below, err := fs.Sub(files, "files")
	if err != nil {
		panic(err) // it is in the program
	}
	operates := rights.Operates(scope.AnyChannel) // the API says of which
	return &frame.Room{Files: below, Views: []frame.View{
		{Path: Home, Needs: rights.Reads(scope.OfList), Load: list},
	}, Actions: []frame.Action{
		{Path: "/ui/hosts/{host}/approve", Needs: operates, Ask: askApprove, Do: approve},
		{Path: "/ui/hosts/{host}/refuse", Needs: operates, Ask: askRefuse, Do: refuse},
	}}
}

// ask is a line of the list.
type ask struct {
	api.Ask
	May     bool   // answer it
	Approve string // where
	Refuse  string
}

func list(r *frame.Request) (*frame.Page, error) {
	asks, err := all(r)
	if err != nil {
		return nil, err
	}
	waiting := 0
	lines := make([]ask, len(asks))
	for i, a := range asks {
		q := "?key=" + url.QueryEscape(a.Key)
		at := "/ui/hosts/" + url.PathEscape(a.Host)
		lines[i] = ask{Ask: a, May: r.Can(scope.Operate, a.Channel), Approve: at + "/approve" + q, Refuse: at + "/refuse" + q}
		if a.RefusedBy == "" {
			waiting++
		}
	}
	return &frame.Page{Title: "Machines that ask to be hosts", Body: "asks", Data: lines, Bad: waiting, Fragments: []string{"asks-table"},
		Topics: []string{audit.HostsOf(""), audit.Events}}, nil
}

func all(r *frame.Request) ([]api.Ask, error) {
	var got struct {
		Asks []api.Ask `json:"asks"`
	}
	err := r.Get("/api/v1/asks", &got)
	return got.Asks, err
}

// find is what somebody asks with the key in the URL.
func find(r *frame.Request) (*api.Ask, error) {
	asks, err := all(r)
	if err != nil {
		return nil, err
	}
	for i := range asks {
		if asks[i].Host == r.Param("host") && asks[i].Key == r.Query.Get("key") {
			return &asks[i], nil
		}
	}
	return nil, api.Errorf(api.NotFound, "No machine asks to be %s by this key any more.", r.Param("host"))
}

const compare = "Is it the fingerprint that the machine's own console shows? There: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"

func (a *ask) lines() []string {
	return []string{a.Key, fmt.Sprintf("It asks for the channel %s since %s, last from %s.", a.Channel, a.Since.UTC().Format("2006-01-02 15:04 UTC"), a.Address)}
}

func askApprove(r *frame.Request) (*frame.Question, error) {
	name := r.Param("host")
	if r.Query.Has("instance") {
		return askInstance(r, name)
	}
	a, err := find(r)
	if err != nil {
		return nil, err
	}
	return &frame.Question{
		Title: "Approve: " + name, Text: "The machine with this key becomes the host " + name + ". " + compare, Lines: (&ask{Ask: *a}).lines(),
		Button: "Approve", Keep: map[string]string{"key": a.Key}, Back: Home,
	}, nil
}

// askInstance is for a machine that claims the name that another one has.
func askInstance(r *frame.Request, name string) (*frame.Question, error) {
	var h api.Host
	if err := r.Get("/api/v1/hosts/"+url.PathEscape(name), &h); err != nil {
		return nil, err
	}
	id := r.Query.Get("instance")
	q := &frame.Question{
		Title: "Give the name " + name + " to another machine", Button: "Give it the name", Danger: true, Keep: map[string]string{"instance": id}, Back: "/ui/hosts/" + url.PathEscape(name),
		Text: "The machine that has the name now is refused from then on, and if it joined by a token, that is revoked.",
	}
	for _, c := range h.Conflict {
		if c.Instance == id {
			q.Lines = []string{"To the machine " + named(id) + ", which claims it."}
			return q, nil
		}
	}
	q.Stale = "That machine does not claim the name any more: look at the host first."
	return q, nil
}

func named(instance string) string {
	if instance == "" {
		return "whose agent says no instance"
	}
	return instance
}

func approve(r *frame.Request, a *frame.Answer) (string, error) {
	name := url.PathEscape(r.Param("host"))
	body, next := map[string]string{"key": a.Form.Get("key")}, Home
	if a.Form.Has("instance") {
		body, next = map[string]string{"instance": a.Form.Get("instance")}, "/ui/hosts/"+name
	}
	return next, r.Do("POST", "/api/v1/hosts/"+name+"/approve", body, nil)
}

func askRefuse(r *frame.Request) (*frame.Question, error) {
	a, err := find(r)
	if err != nil {
		return nil, err
	}
	return &frame.Question{
		Title: "Refuse: " + a.Host, Text: "The machine with this key is told that it is not " + a.Host + ". Approve takes that back.", Lines: (&ask{Ask: *a}).lines(),
		Button: "Refuse", Danger: true, Keep: map[string]string{"key": a.Key}, Back: Home,
	}, nil
}

func refuse(r *frame.Request, a *frame.Answer) (string, error) {
	return Home, r.Do("POST", "/api/v1/hosts/"+url.PathEscape(r.Param("host"))+"/refuse", map[string]string{"key": a.Form.Get("key")}, nil)
}
