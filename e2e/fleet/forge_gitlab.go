package fleet

import (
	"maps"
	"slices"
	"strings"
)

// GitLab runs the job of a pipeline as GitLab does; nil if there is none for it.
func (r *Repository) GitLab(p Pipeline) *Output {
	r.ci.T.Helper()
	number := r.number(p)
	env := map[string]string{
		"GITLAB_CI": "true", "CI_PIPELINE_IID": number, "CI_COMMIT_SHA": strings.Repeat("b", 40), "CI_DEFAULT_BRANCH": "main",
		"CI_PIPELINE_URL": "https://gitlab.example.org/acme/fleet/-/pipelines/90" + number, "CI_PIPELINE_SOURCE": "push",
	}
	switch p.Event {
	case "pull_request":
		env["CI_PIPELINE_SOURCE"] = "merge_request_event"
	case "workflow_dispatch":
		env["CI_PIPELINE_SOURCE"] = "web"
		env["CI_COMMIT_BRANCH"] = strings.TrimPrefix(p.Ref, "refs/heads/")
	default:
		env["CI_COMMIT_BRANCH"] = strings.TrimPrefix(p.Ref, "refs/heads/")
	}
	for _, more := range []map[string]string{p.Vars, p.Secrets, p.Inputs} {
		maps.Copy(env, more)
	}
	contexts := map[string]any{"env": env}
	file := r.file(".gitlab-ci.yml")
	for _, name := range slices.Sorted(maps.Keys(file)) {
		of := asMap(file[name])
		if strings.HasPrefix(name, ".") || !r.matches(of["rules"], contexts) {
			continue
		}
		whole := maps.Clone(asMap(file[asText(of["extends"])]))
		maps.Copy(whole, of)
		j := r.begin(p, contexts, env)
		j.nixConf += trusted(p.Vars)
		for token, of := range asMap(whole["id_tokens"]) {
			audience := env[strings.TrimPrefix(asText(asMap(of)["aud"]), "$")]
			if p.idToken != nil {
				j.env[token] = p.idToken(audience)
			}
		}
		for _, line := range asTexts(whole["script"]) {
			if !j.shell([]string{"bash", "-eo", "pipefail"}, line, nil) {
				break
			}
		}
		return j.end()
	}
	return nil
}

// matches says whether one of the rules of a job is for the pipeline.
func (r *Repository) matches(rules any, contexts map[string]any) bool {
	r.ci.T.Helper()
	list, _ := rules.([]any)
	for _, rule := range list {
		value, err := evaluate(asText(asMap(rule)["if"]), contexts)
		r.must(err)
		if truth(value) {
			return true
		}
	}
	return false
}

// trusted is what the runners of forges without an action for it have in nix.conf.
func trusted(vars map[string]string) string {
	return "extra-substituters = " + vars["NARWHARF_SERVER"] + "\nextra-trusted-public-keys = " + vars["NARWHARF_PUBLIC_KEYS"] + "\n"
}

// Buildkite runs the step of a build as Buildkite does; nil if it has none. Its agent is a script that
// knows what the files of docs/ci ask of it.
func (r *Repository) Buildkite(p Pipeline) *Output {
	r.ci.T.Helper()
	number, branch := r.number(p), strings.TrimPrefix(p.Ref, "refs/heads/")
	env := map[string]string{
		"BUILDKITE": "true", "BUILDKITE_BUILD_NUMBER": number, "BUILDKITE_COMMIT": strings.Repeat("c", 40), "BUILDKITE_BRANCH": branch,
		"BUILDKITE_BUILD_URL": "https://buildkite.com/acme/fleet/builds/" + number, "BUILDKITE_PULL_REQUEST": "false", "BUILDKITE_TAG": "",
		"BUILDKITE_PIPELINE_SLUG": "fleet", "BUILDKITE_REPO": "git@github.com:acme/fleet.git", "BUILDKITE_PULL_REQUEST_REPO": "",
	}
	pull := map[string]any{}
	if p.Event == "pull_request" {
		env["BUILDKITE_PULL_REQUEST"], env["BUILDKITE_PULL_REQUEST_REPO"], pull["id"] = "7", "git://github.com/acme/fleet.git", 7
		if p.Fork {
			env["BUILDKITE_PULL_REQUEST_REPO"] = "git://github.com/mallory/fleet.git"
		}
	}
	for _, more := range []map[string]string{p.Vars, p.Secrets, p.Inputs} {
		maps.Copy(env, more)
	}
	contexts := map[string]any{
		"build":    map[string]any{"branch": branch, "pull_request": pull},
		"pipeline": map[string]any{"default_branch": "main"},
	}
	steps, _ := r.file(".buildkite/pipeline.yml")["steps"].([]any)
	for _, each := range steps {
		step := asMap(each)
		value, err := evaluate(asText(step["if"]), contexts)
		r.must(err)
		if !truth(value) {
			continue
		}
		j := r.begin(p, contexts, env)
		j.nixConf += trusted(p.Vars)
		j.env["PATH"] = j.env["HOME"] + "/agent:" + j.env["PATH"]
		r.ci.WriteFile(j.env["HOME"]+"/agent/buildkite-agent", buildkiteAgent, 0o755)
		j.shell([]string{"bash", "-e"}, strings.ReplaceAll(asText(step["command"]), "$$", "$"), nil)
		if j.ci.Exec("test", "-e", j.env["HOME"]+"/annotation").Code == 0 {
			j.out.Summary = j.ci.ReadFile(j.env["HOME"] + "/annotation")
		}
		return j.end()
	}
	return nil
}

const buildkiteAgent = `#!/bin/bash
case "$1 $2" in
  "annotate --context") cat > "$HOME/annotation" ;;
  "oidc request-token") [ "$3" = --audience ] && curl -fsS -H "Authorization: bearer $AGENT_SECRET" "$AGENT_URL&audience=$4" | sed 's/.*"value":"//; s/".*//' ;;
  *) echo "this imitation of Buildkite's agent does not know $*" >&2; exit 1 ;;
esac
`

// Shell types docs/ci/deploy.sh in the repository's folder.
func (r *Repository) Shell(p Pipeline) *Output {
	r.ci.T.Helper()
	env := map[string]string{}
	for _, more := range []map[string]string{p.Vars, p.Secrets, p.Inputs} {
		maps.Copy(env, more)
	}
	j := r.begin(p, nil, env)
	j.nixConf += trusted(p.Vars)
	j.shell([]string{"bash", "-e"}, "ci/deploy.sh", nil)
	return j.end()
}
