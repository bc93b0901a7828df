package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// TokenVariable is the environment's variable that any CI may put a job's JWT into.
const TokenVariable = "NARWHARF_OIDC_TOKEN"

// CI is where a job finds a JWT about itself.
type CI struct {
	Name   string
	asks   bool // it is asked for a JWT of our audience
	issues func(issuer string) bool
	token  func(ctx context.Context, audience string) (string, error)
}

// Machine is what a job has around it.
type Machine struct {
	Getenv func(string) string
	Run    func(ctx context.Context, name string, args ...string) (string, error)
	HTTP   *http.Client // nil: one of its own
}

// CI is the one that runs this program, by its environment; nil if there is none that is known.
func (m *Machine) CI() *CI {
	env := m.Getenv
	has := func(jwt string) func(context.Context, string) (string, error) {
		return func(context.Context, string) (string, error) { return jwt, nil }
	}
	all := func(string) bool { return true }
	switch {
	case env(TokenVariable) != "":
		return &CI{Name: "$" + TokenVariable, issues: all, token: has(env(TokenVariable))}
	case env("ACTIONS_ID_TOKEN_REQUEST_URL") != "" || env("GITHUB_ACTIONS") == "true":
		return &CI{Name: "GitHub Actions", asks: true, issues: m.actionsIssuer, token: m.actions}
	case env("GITLAB_CI") != "":
		return &CI{Name: "GitLab CI", asks: true, issues: prefix(env("CI_SERVER_URL")), token: gitlab}
	case env("BUILDKITE") == "true":
		return &CI{Name: "Buildkite", asks: true, issues: prefix("https://agent.buildkite.com"), token: func(ctx context.Context, audience string) (string, error) {
			return m.Run(ctx, "buildkite-agent", "oidc", "request-token", "--audience", audience)
		}}
	case env("CIRCLE_OIDC_TOKEN_V2") != "":
		return &CI{Name: "CircleCI", issues: prefix("https://oidc.circleci.com/"), token: has(env("CIRCLE_OIDC_TOKEN_V2"))}
	}
	return nil
}

// prefix is of issuers whose URL begins so; of none if that is "".
func prefix(of string) func(string) bool {
	return func(issuer string) bool { return of != "" && strings.HasPrefix(issuer, of) }
}

// actionsIssuer is that of GitHub, or of the Forgejo that has GitHub's variables.
func (m *Machine) actionsIssuer(issuer string) bool {
	at := strings.TrimRight(m.Getenv("GITHUB_SERVER_URL"), "/")
	if at == "" || at == "https://github.com" {
		return prefix("https://token.actions.githubusercontent.com")(issuer)
	}
	return issuer == at+"/api/actions" || issuer == at+"/_services/token"
}

// actions asks a runner of GitHub Actions, or of Forgejo.
func (m *Machine) actions(ctx context.Context, audience string) (string, error) {
	at, secret := m.Getenv("ACTIONS_ID_TOKEN_REQUEST_URL"), m.Getenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
	if at == "" || secret == "" {
		return "", errors.New("the job may not ask for a JWT: give it `permissions: {id-token: write}` (Forgejo, from 15 on: `enable-openid-connect: true`); a pull request from a fork gets none")
	}
	u, err := url.Parse(at)
	if err != nil {
		return "", errors.New("$ACTIONS_ID_TOKEN_REQUEST_URL is no URL")
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "bearer "+secret)
	client := m.HTTP
	if client == nil {
		client = &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask for the JWT of the job: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Value string `json:"value"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer)
	if resp.StatusCode != http.StatusOK || err != nil || answer.Value == "" {
		return "", fmt.Errorf("ask for the JWT of the job: the runner's service answers with status %d and no JWT", resp.StatusCode)
	}
	return answer.Value, nil
}

func gitlab(_ context.Context, audience string) (string, error) {
	return "", fmt.Errorf("the job has no JWT: add `id_tokens: {%s: {aud: \"%s\"}}` to it in .gitlab-ci.yml", TokenVariable, audience)
}
