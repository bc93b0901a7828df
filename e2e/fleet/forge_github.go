package fleet

import (
	"encoding/json"
	"maps"
	"path"
	"strings"
)

// GitHub runs the workflow of a pipeline as GitHub does; nil if it is not started by it.
func (r *Repository) GitHub(p Pipeline) *Output {
	r.ci.T.Helper()
	return r.actions(p, ".github/workflows/deploy.yml", nil)
}

// Forgejo runs the workflow of a pipeline as Forgejo does, and Gitea.
func (r *Repository) Forgejo(p Pipeline) *Output {
	r.ci.T.Helper()
	return r.actions(p, ".forgejo/workflows/deploy.yml", map[string]string{"FORGEJO_ACTIONS": "true", "GITEA_ACTIONS": "true"})
}

// Typed runs lines in the place of what a workflow of GitHub runs, with all that a job has.
func (r *Repository) Typed(p Pipeline, lines string) *Output {
	r.ci.T.Helper()
	r.write(".github/workflows/typed.yml", "on: {push: {branches: ['**', '*']}, pull_request: {}, workflow_dispatch: {}}\njobs: {typed: {steps: [{shell: bash, run: 'bash typed'}]}}\n", 0o644)
	r.write("typed", lines, 0o644)
	p.byHand = true
	return r.actions(p, ".github/workflows/typed.yml", p.Vars)
}

func (r *Repository) actions(p Pipeline, name string, more map[string]string) *Output {
	r.ci.T.Helper()
	workflow := r.file(name)
	if !started(workflow["on"], p) {
		return nil
	}
	ref, refType := path.Base(p.Ref), "branch"
	if strings.HasPrefix(p.Ref, "refs/tags/") {
		refType = "tag"
	}
	if p.Event == "pull_request" {
		ref, refType, p.Ref = "7/merge", "branch", "refs/pull/7/merge"
	}
	number := r.number(p)
	env := map[string]string{
		"GITHUB_ACTIONS": "true", "GITHUB_EVENT_NAME": p.Event, "GITHUB_REF": p.Ref, "GITHUB_REF_NAME": ref, "GITHUB_REF_TYPE": refType,
		"GITHUB_SHA": strings.Repeat("a", 40), "GITHUB_RUN_NUMBER": number, "GITHUB_RUN_ID": "9000" + number,
		"GITHUB_REPOSITORY": "acme/fleet", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_API_URL": "http://ci:9443/api",
		"GITHUB_ACTION_PATH": r.dir + "/.github/actions/narwharf",
	}
	maps.Copy(env, more)
	event := map[string]any{}
	if p.Event == "pull_request" {
		labels := []any{}
		for _, l := range p.Labels {
			labels = append(labels, map[string]any{"name": l})
		}
		event["pull_request"] = map[string]any{"number": 7, "labels": labels}
	}
	contexts := map[string]any{
		"github": map[string]any{"event_name": p.Event, "ref": p.Ref, "ref_name": ref, "event": event, "token": "ghs_of-this-job"},
		"vars":   p.Vars, "secrets": p.Secrets, "inputs": p.Inputs,
	}
	j := r.begin(p, contexts, env)
	text, err := json.Marshal(event)
	r.must(err)
	j.env["GITHUB_EVENT_PATH"], j.env["GITHUB_STEP_SUMMARY"] = j.env["HOME"]+"/event.json", j.env["HOME"]+"/summary.md"
	r.ci.WriteFile(j.env["GITHUB_EVENT_PATH"], string(text), 0o644)
	for _, each := range asMap(workflow["jobs"]) {
		j.steps(asMap(each)["steps"], contexts)
	}
	if j.ci.Exec("test", "-e", j.env["GITHUB_STEP_SUMMARY"]).Code == 0 {
		j.out.Summary = j.ci.ReadFile(j.env["GITHUB_STEP_SUMMARY"])
	}
	return j.end()
}

// started says whether a workflow is for the event: by its branches and tags, where it names some.
func started(on any, p Pipeline) bool {
	events := asMap(on)
	filter, named := events[p.Event]
	if !named || p.Event != "push" {
		return named
	}
	kind, name := "branches", strings.TrimPrefix(p.Ref, "refs/heads/")
	if strings.HasPrefix(p.Ref, "refs/tags/") {
		kind, name = "tags", strings.TrimPrefix(p.Ref, "refs/tags/")
	}
	for _, glob := range asTexts(asMap(filter)[kind]) {
		if ok, err := path.Match(glob, name); ok && err == nil {
			return true
		}
	}
	return false
}

// steps runs the steps of a job, or of a composite action.
func (j *job) steps(steps any, contexts map[string]any) bool {
	j.ci.T.Helper()
	list, _ := steps.([]any)
	for _, each := range list {
		step := asMap(each)
		with, env := j.values(step["with"], contexts), j.values(step["env"], contexts)
		uses, _ := step["uses"].(string)
		switch {
		case strings.HasPrefix(uses, "actions/checkout@"): // it is there
		case strings.HasPrefix(uses, "cachix/install-nix-action@"):
			j.nixConf += with["extra_nix_config"]
		case strings.HasPrefix(uses, "./"):
			if !j.composite(strings.TrimPrefix(uses, "./"), with, contexts) {
				return false
			}
		case uses != "":
			j.ci.T.Fatalf("this imitation of GitHub does not know %s", uses)
		default:
			lines, err := expand(asText(step["run"]), contexts)
			j.must(err)
			shell := []string{"bash", "-e"}
			if step["shell"] == "bash" {
				shell = []string{"bash", "--noprofile", "--norc", "-eo", "pipefail"}
			}
			if !j.shell(shell, lines, env) {
				return false
			}
		}
	}
	return true
}

// composite runs a local action with the inputs that it declares.
func (j *job) composite(folder string, with map[string]string, contexts map[string]any) bool {
	j.ci.T.Helper()
	action := j.file(folder + "/action.yml")
	inputs := map[string]string{}
	for name, declared := range asMap(action["inputs"]) {
		value, given := with[name]
		if preset, ok := asMap(declared)["default"].(string); ok && !given {
			var err error
			value, err = expand(preset, contexts)
			j.must(err)
		}
		if asMap(declared)["required"] == true && value == "" {
			j.ci.T.Errorf("%s: the input %s is required", folder, name)
		}
		inputs[name] = value
	}
	for name := range with {
		if _, declared := inputs[name]; !declared {
			j.ci.T.Errorf("%s declares no input %s", folder, name)
		}
	}
	inside := maps.Clone(contexts)
	delete(inside, "secrets") // an action has none, nor vars
	delete(inside, "vars")
	inside["inputs"] = inputs
	return j.steps(asMap(action["runs"])["steps"], inside)
}

func (j *job) values(from any, contexts map[string]any) map[string]string {
	j.ci.T.Helper()
	values := map[string]string{}
	for name, value := range asMap(from) {
		var err error
		values[name], err = expand(asText(value), contexts)
		j.must(err)
	}
	return values
}
