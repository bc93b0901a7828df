package fleet

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"narwharf/signing/access/oidc/oidctest"
)

// A cloud is what is around a forge whose jobs have no secrets: the forge's word for a job (OpenID
// Connect), and a key service that believes it.
type cloud struct {
	issuer *oidctest.Issuer
	keys   map[string]*ecdsa.PrivateKey // of promoters, by alias
	paths  ed25519.PrivateKey           // of what production's jobs upload, contentAlias
	mu     sync.Mutex
	jobs   map[string]map[string]any // claims of the jobs that run, by the secret of each
	signed map[string]int            // how often, by alias
}

// mayUse is the policy of each key: which environments of the repository sign with it.
var mayUse = map[string][]string{"alias/production": {"production", "test"}, contentAlias: {"production", "test"}, "alias/staging": {"staging"}}

const contentAlias = "alias/content"

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{keys: map[string]*ecdsa.PrivateKey{}, jobs: map[string]map[string]any{}, signed: map[string]int{}}
	_, c.paths, _ = ed25519.GenerateKey(nil)
	for _, alias := range []string{"alias/production", "alias/staging"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c.keys[alias] = key
	}
	return c
}

// public is the text of a key for hosts and for --key.
func (c *cloud) public(alias string) string {
	k := c.keys[alias]
	return path.Base(alias) + "-1:ecdsa-p256:" + base64.StdEncoding.EncodeToString(elliptic.MarshalCompressed(elliptic.P256(), k.X, k.Y))
}

// content is the text of the content key.
func (c *cloud) content() string {
	return path.Base(contentAlias) + "-1:" + base64.StdEncoding.EncodeToString(c.paths.Public().(ed25519.PublicKey)) //nolint:forcetypeassert // it is one
}

// serve serves the issuer as https://ci:9444, which the server's machine then believes to be that, and
// the forge's answers and the key service on port 9445.
func (c *cloud) serve(f *Fleet) {
	f.T.Helper()
	listener, err := f.CI().Listen(9444)
	if err != nil {
		f.T.Fatal(err)
	}
	c.issuer = oidctest.New(f.T, oidctest.Options{Listener: listener, Name: "ci", Path: "/api/actions"})
	f.Server().Sh(`cat >> /etc/ssl/certs/ca-certificates.crt <<< "$1"`, string(c.issuer.Certificate()))
	front, err := f.CI().Listen(9445)
	if err != nil {
		f.T.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /idtoken", c.idToken)
	mux.HandleFunc("POST /sign", c.sign)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(front) }()
	f.T.Cleanup(func() { _ = server.Close() })
	f.CI().WriteFile("/opt/aws/aws", awsCommand, 0o755)
}

// awsCommand is as much of `aws kms sign` as is used, with a role by the job's own JWT.
const awsCommand = `#!/bin/bash
set -euo pipefail
[ "$1 $2 $3" = "kms sign --key-id" ]
case "${*:5}" in
  "--signing-algorithm ECDSA_SHA_256 --message fileb:///dev/stdin --query Signature --output text") ;;
  "--signing-algorithm ED25519_SHA_512 --message-type RAW --message fileb:///dev/stdin --query Signature --output text") ;;
  *) exit 252 ;;
esac
jwt=$(curl -fsS -H "Authorization: bearer $ACTIONS_ID_TOKEN_REQUEST_TOKEN" "$ACTIONS_ID_TOKEN_REQUEST_URL&audience=sts.amazonaws.com" | sed 's/.*"value":"//; s/".*//')
exec curl -fsS -H "Authorization: Bearer $jwt" --data-binary @- "http://ci:9445/sign?key=$4"
`

const (
	signCommand    = "aws kms sign --key-id %s --signing-algorithm ECDSA_SHA_256 --message fileb:///dev/stdin --query Signature --output text"
	contentCommand = "aws kms sign --key-id " + contentAlias + " --signing-algorithm ED25519_SHA_512 --message-type RAW --message fileb:///dev/stdin --query Signature --output text"
)

func (c *cloud) idToken(w http.ResponseWriter, r *http.Request) {
	secret, _ := strings.CutPrefix(r.Header.Get("Authorization"), "bearer ")
	jwt := c.word(secret, r.URL.Query().Get("audience"))
	if jwt == "" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"value": jwt})
}

// word is the forge's JWT for the job with that secret; "" if it does not run any more.
func (c *cloud) word(secret, audience string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	claims, runs := c.jobs[secret]
	if !runs {
		return ""
	}
	claims = maps.Clone(claims)
	claims["aud"] = audience
	return c.issuer.Token(claims)
}

// sign is the key service: it looks who asks, and signs the SHA-256 of what it is sent; with Ed25519 that itself.
func (c *cloud) sign(w http.ResponseWriter, r *http.Request) {
	alias := r.URL.Query().Get("key")
	claims, err := c.verified(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	allowed := false
	for _, environment := range mayUse[alias] {
		allowed = allowed || claims["environment"] == environment
	}
	if err != nil || !allowed || claims["aud"] != "sts.amazonaws.com" || claims["repository_id"] != "456" {
		http.Error(w, "AccessDenied", http.StatusForbidden)
		return
	}
	message, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var sig []byte
	if digest := sha256.Sum256(message); alias == contentAlias {
		sig = ed25519.Sign(c.paths, message)
	} else if sig, err = ecdsa.SignASN1(rand.Reader, c.keys[alias], digest[:]); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	c.mu.Lock()
	c.signed[alias]++
	c.mu.Unlock()
	fmt.Fprintln(w, base64.StdEncoding.EncodeToString(sig))
}

func (c *cloud) verified(jwt string) (claims map[string]any, err error) {
	token, err := jose.ParseSignedCompact(jwt, []jose.SignatureAlgorithm{oidctest.ES256})
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(c.issuer.JWKS(), &set); err != nil {
		return nil, err
	}
	payload, err := token.Verify(set)
	if err != nil {
		return nil, err
	}
	return claims, json.Unmarshal(payload, &claims)
}

// during runs a job with the forge's word for it, and without secrets. When it ends the forge knows it
// no more.
func (c *cloud) during(p Pipeline, run func(Pipeline) *Output) *Output {
	secret := rand.Text()
	environment := "production"
	claims := map[string]any{
		"repository": "acme/fleet", "repository_id": "456", "repository_owner_id": "123", "event_name": p.Event, "ref": p.Ref,
		"ref_type": "branch", "sub": "repo:acme/fleet:ref:" + p.Ref,
	}
	switch {
	case p.Event == "pull_request":
		environment, claims["ref"] = "staging", "refs/pull/7/merge"
	case strings.HasPrefix(p.Ref, "refs/heads/test-"):
		environment = "test"
	}
	claims["environment"], claims["project_id"] = environment, "456"
	if p.Fork {
		claims["repository_id"], claims["project_id"] = "999", "999" // of forges that give forks a word at all
	}
	return c.as(secret, claims, func(env map[string]string) *Output {
		p.Env = env
		p.idToken = func(audience string) string { return c.word(secret, audience) }
		return run(p)
	})
}

// as runs something as a job of which the forge says so; env is how the job asks for it.
func (c *cloud) as(secret string, claims map[string]any, run func(env map[string]string) *Output) *Output {
	c.mu.Lock()
	c.jobs[secret] = claims
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.jobs, secret)
		c.mu.Unlock()
	}()
	at := "http://ci:9445/idtoken?job=1"
	return run(map[string]string{
		"PATH": "/opt/aws:/opt/nix/bin:/usr/sbin:/usr/bin:/sbin:/bin", "ACTIONS_ID_TOKEN_REQUEST_URL": at, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": secret,
		"AGENT_URL": at, "AGENT_SECRET": secret,
	})
}

// identified is a fleet whose CI has no secrets. Hosts believe keys of the key service: of production also for
// bytes; those of staging believe the bytes of pull requests' own cache.
func identified(t *testing.T) (*ciFleet, *cloud) {
	t.Helper()
	c := newCloud(t)
	cf := newCIFleet(t, func(f *Fleet) [4]string {
		return [4]string{c.public("alias/production"), c.content(), c.public("alias/staging"), f.Key("pulls-cache-1")}
	})
	c.serve(cf.Fleet)
	server := cf.Server()
	issuer := fmt.Sprintf("\n[[access.oidc]]\nname = \"github\"\nissuer = %q\nprivate_addresses = true\naudience = ", c.issuer.URL)
	server.Configure(func(toml string) string {
		return toml + issuer + `"http://cache"
` + mainRules
	})
	server.Restart()
	cf.second.Kill()
	server.WriteFile(pullConfig, "public_url = \"http://cache:81\"\n"+server.ReadFile(pullConfig)+issuer+"\"http://cache:81\"\n"+pullRules, 0o644)
	cf.second = server.Machine.Start("narwharf", "serve", "--config", pullConfig)
	production, staging := maps.Clone(cf.production.Vars), maps.Clone(cf.staging.Vars)
	production["NARWHARF_SIGN_CMD"], production["NARWHARF_KEY"] = fmt.Sprintf(signCommand, "alias/production"), c.public("alias/production")
	production["NARWHARF_CONTENT_SIGN_CMD"], production["NARWHARF_CONTENT_KEY"] = contentCommand, c.content()
	staging["NARWHARF_SIGN_CMD"], staging["NARWHARF_KEY"] = fmt.Sprintf(signCommand, "alias/staging"), c.public("alias/staging")
	cf.production.Vars, cf.staging.Vars = production, staging
	return cf, c
}

const mainRules = `
[[access.oidc.rules]]
name = "main"
claims = { repository_id = "456", ref = "refs/heads/main", event_name = ["push", "workflow_dispatch"], environment = "production" }
scopes = ["push", "promote:production"]
ttl = "15m"

[[access.oidc.rules]]
name = "test-h1"
claims = { repository_id = "456", ref = "refs/heads/test-h1", event_name = "push", environment = "test" }
scopes = ["push", "promote:production/h1:test"]
ttl = "15m"
`

const pullRules = `
[[access.oidc.rules]]
name = "pulls"
claims = { repository_id = "456", event_name = "pull_request", environment = "staging" }
scopes = ["push", "promote:staging"]
ttl = "15m"
`

// TestNobodyHasASecret is story 11: CI's rights are the forge's word, its keys lie in a key service, and
// each job may do its own and nothing more.
func TestNobodyHasASecret(t *testing.T) {
	onlyLong(t)
	t.Parallel()
	cf, c := identified(t)
	story := func(name string, tell func(s *Story, cf *ciFleet)) { cf.story(t, name, tell) }
	story("11: main's job promotes production", func(s *Story, cf *ciFleet) {
		cf.commit("a")
		cf.ends(c.during(cf.main(), cf.repo.GitHub), 0, "completed: seq 1 of production")
		cf.runs("a", "h1", "h2")
		if c.signed["alias/production"] == 0 || c.signed[contentAlias] == 0 {
			s.Errorf("the key service was asked so often: %v", c.signed)
		}
	})
	story("11: a pull request's job promotes staging, on its own cache", func(s *Story, cf *ciFleet) {
		cf.commit("pull")
		cf.ends(c.during(cf.staging, cf.repo.GitHub), 0, "completed: seq 1 of staging")
		cf.runs("pull", "h3")
		cf.runs("a", "h1", "h2")
	})
	story("11: a fork's pull request can do nothing", func(s *Story, cf *ciFleet) {
		cf.commit("fork")
		fork := cf.staging
		cf.ends(cf.repo.GitHub(fork), 0, "it was built, and nothing else") // GitHub gives it no word
		fork.Fork = true
		out := c.during(fork, cf.repo.GitHub)
		cf.ends(out, 2, "fits no rule")
		cf.ends(c.during(fork, cf.repo.Buildkite), 0, "it was built, and nothing else")
		cf.runs("pull", "h3")
	})
	story("11: the branch test-h1 tests h1, and nothing more", func(s *Story, cf *ciFleet) { testBranch(s, cf, c) })
	story("11: a pull request's job at production, by hand", func(s *Story, cf *ciFleet) { pullAtProduction(s, cf, c) })
	story("11: nobody in CI reads a host's secrets, or is a host", func(s *Story, cf *ciFleet) { hostsSecrets(s, cf, c) })
	story("11: what a job had is worth nothing after it", func(s *Story, cf *ciFleet) { afterTheJob(s, cf, c) })
	story("11: Forgejo, GitLab and Buildkite", func(s *Story, cf *ciFleet) {
		for name, run := range map[string]func(Pipeline) *Output{"forgejo": cf.repo.Forgejo, "gitlab": cf.repo.GitLab, "buildkite": cf.repo.Buildkite} {
			cf.commit(name)
			cf.ends(c.during(cf.main(), run), 0, "completed")
			cf.runs(name, "h1", "h2")
		}
	})
}

// hand begins what somebody types into a job: narwharf in PATH, logged in at the main server.
const hand = `set -euo pipefail
PATH=$NARWHARF_PACKAGE/bin:$PATH
export NIX_CONFIG="extra-experimental-features = nix-command flakes"
line=$(narwharf login "$NARWHARF_SERVER")
trap 'narwharf logout "$NARWHARF_SERVER" || true' EXIT
eval "$line"
echo "$NARWHARF_KEY" > "$HOME/key.pub"
flags=(--key "$HOME/key.pub" --sign-cmd "$NARWHARF_SIGN_CMD")
system() { nix build --no-link --print-out-paths ".#nixosConfigurations.$1.config.system.build.toplevel"; }
`

func testBranch(s *Story, cf *ciFleet, c *cloud) {
	cf.commit("try")
	branch := cf.production.on("push", "refs/heads/test-h1")
	cf.ends(c.during(branch, cf.repo.GitHub), 0, "testing")
	cf.runs("try", "h1")
	cf.runs("a", "h2")
	typed := func(lines string) func(Pipeline) *Output {
		return func(p Pipeline) *Output { return cf.repo.Typed(p, hand+lines) }
	}
	cf.ends(c.during(branch, typed(`narwharf promote production --set h2=$(system h2) --action test "${flags[@]}"`)), 2, "promote:production/h1:test")
	cf.ends(c.during(branch, typed(`narwharf promote production --set h1=$(system h1) --action switch "${flags[@]}"`)), 2, "test")
	cf.ends(c.during(branch, typed(`narwharf rollback production --to 1 "${flags[@]}"`)), 2, "promote:production/h1:test")
	// Another branch than the rule's has none.
	cf.ends(c.during(cf.production.on("push", "refs/heads/test-h2"), cf.repo.GitHub), 2, "fits no rule")
	cf.runs("a", "h2")
}

func pullAtProduction(s *Story, cf *ciFleet, c *cloud) {
	pull := cf.staging
	typed := func(lines string) func(Pipeline) *Output {
		return func(p Pipeline) *Output { return cf.repo.Typed(p, lines) }
	}
	// The main server has no rule for it, also for a JWT that it asks for in the main server's name.
	cf.ends(c.during(pull, typed(hand)), 2, "fits no rule")
	// Its own server's token is none of the main server's.
	own := strings.ReplaceAll(hand, `"$NARWHARF_SERVER"`, `"$NARWHARF_PR_SERVER"`)
	cf.ends(c.during(pull, typed(own+`narwharf promote production --server "$NARWHARF_SERVER" h1=$(system h1) "${flags[@]}"`)), 2, "token")
	// On its own server it is staging's alone.
	cf.ends(c.during(pull, typed(own+`nix copy --to "$NARWHARF_PR_SERVER" $(system h1)
narwharf promote production --server "$NARWHARF_PR_SERVER" h1=$(system h1) "${flags[@]}"`)), 2, "promote:production")
	// And the key of production signs nothing for it.
	cf.ends(c.during(pull, typed(own+`echo x | `+fmt.Sprintf(signCommand, "alias/production"))), 22, "403")
	cf.runs("a", "h2")
}

func hostsSecrets(s *Story, cf *ciFleet, c *cloud) {
	token := strings.TrimSpace(cf.Host("h1").ReadFile("/var/lib/narwharf/token"))
	for _, p := range []Pipeline{cf.main(), cf.staging} {
		server := "$NARWHARF_SERVER"
		if p.Event == "pull_request" {
			server = "$NARWHARF_PR_SERVER"
		}
		lines := strings.ReplaceAll(hand, `"$NARWHARF_SERVER"`, `"`+server+`"`) + `
netrc=$(sed -n 's/^netrc-file = //p' <<< "$NIX_CONFIG")
ask() { echo "$1 $2: $(curl -s -o answer -w '%{http_code}' --netrc-file "$netrc" -X "$1" "` + server + `/api/v1$2" ${3:+-d "$3"})"; cat answer >> all; }
ask GET '/hosts'
ask GET '/hosts/h1/desired?channel=production&target=h1'
ask PUT /hosts/h1/status '{"channel":"production","state":"ok"}'
ask POST /join '{"host":"h1","channel":"production"}'
ask PATCH /hosts/h1 '{"hold":{"reason":"x"}}'
ask GET '/events'
cat all; rm all answer
`
		out := c.during(p, func(p Pipeline) *Output { return cf.repo.Typed(p, lines) })
		cf.ends(out, 0, "GET /hosts/h1/desired?channel=production&target=h1: 403", "PUT /hosts/h1/status: 403", "POST /join: 403", "PATCH /hosts/h1: 403")
		if strings.Contains(out.Stdout, token) || strings.Contains(out.Stdout, "nwt_") {
			s.Errorf("a token is in what %s reads", p.Event)
		}
	}
}

func afterTheJob(s *Story, cf *ciFleet, c *cloud) {
	const loot = `cp -r "$(dirname "$(sed -n 's/^netrc-file = //p' <<< "$NIX_CONFIG")")" /tmp/loot
echo "$ACTIONS_ID_TOKEN_REQUEST_TOKEN" > /tmp/loot/secret
curl -fsS --netrc-file /tmp/loot/netrc "$NARWHARF_SERVER/api/v1/hosts" > /dev/null
narwharf logout
`
	cf.ends(c.during(cf.main(), func(p Pipeline) *Output { return cf.repo.Typed(p, hand+loot) }), 0)
	ci := cf.CI()
	if got := ci.Sh(`curl -s -o /dev/null -w '%{http_code}' --netrc-file /tmp/loot/netrc http://cache/api/v1/hosts`); got != "401" {
		s.Errorf("the token of a job that has ended: %s, want 401", got)
	}
	if got := ci.Sh(`curl -s -o /dev/null -w '%{http_code}' -H "Authorization: bearer $(cat /tmp/loot/secret)" 'http://ci:9445/idtoken?job=1&audience=http://cache'`); got != "401" {
		s.Errorf("the forge's word for a job that has ended: %s, want 401", got)
	}
	if left := cf.Server().Must("narwharf", "token", "list"); strings.Contains(left, "github/") {
		s.Errorf("tokens of jobs that have ended:\n%s", left)
	}
}
