package rule

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// Claims as the documents of their issuers show them stand in testdata, and rules as docs/access.md
// recommends them here. A change is what is different in a JWT that must not fit; nil takes a claim away.
type change map[string]any

var issuers = []struct {
	file   string
	rule   map[string]any
	hosts  string   // host_claim
	fit    []change // that still do
	refuse map[string]change
	host   string
}{
	{
		file: "github.json",
		rule: map[string]any{
			"repository_id": "456", "ref": "refs/heads/main", "environment": "production", "event_name": []any{"push", "workflow_dispatch"},
			"job_workflow_ref": "octo/web/.github/workflows/deploy.yml@refs/heads/main",
		},
		fit: []change{
			{"event_name": "workflow_dispatch"},
			// The subject of repositories that were made or renamed after July 2026.
			{"sub": "repo:octo@123/web@456:environment:production"},
			{"azp": "somebody"},
		},
		refuse: map[string]change{
			"pull_request_target":               {"event_name": "pull_request_target", "sub": "repo:octo/web:pull_request"},
			"a closed pull request":             {"event_name": "pull_request", "head_ref": "evil", "base_ref": "main", "sub": "repo:octo/web:pull_request"},
			"a pull request":                    {"event_name": "pull_request", "ref": "refs/pull/7/merge", "head_ref": "evil", "base_ref": "main"},
			"workflow_run":                      {"event_name": "workflow_run"},
			"a repository of the same name":     {"repository_id": "457"},
			"another branch":                    {"ref": "refs/heads/dev", "sub": "repo:octo/web:ref:refs/heads/dev"},
			"a branch that begins like it":      {"ref": "refs/heads/main/x"},
			"a tag of that name":                {"ref": "refs/tags/main", "ref_type": "tag"},
			"another environment":               {"environment": "staging", "sub": "repo:octo/web:environment:staging"},
			"no environment":                    {"environment": nil, "sub": "repo:octo/web:ref:refs/heads/main"},
			"a workflow of others that is used": {"job_workflow_ref": "evil/shared/.github/workflows/deploy.yml@refs/heads/main"},
			"another that uses this workflow":   {"repository": "evil/web", "repository_id": "9", "repository_owner": "evil", "workflow_ref": "evil/web/.github/workflows/x.yml@refs/heads/main"},
		},
	},
	{
		file: "github.json",
		rule: map[string]any{"sub": []any{"repo:octo/web:environment:production", "repo:octo@123/web@456:environment:production"}},
		fit:  []change{{"sub": "repo:octo@123/web@456:environment:production"}},
		refuse: map[string]change{
			"another of the name, after July 2026": {"sub": "repo:octo@124/web@456:environment:production"},
			"another environment":                  {"sub": "repo:octo/web:environment:staging"},
			"a branch":                             {"sub": "repo:octo/web:ref:refs/heads/main"},
		},
	},
	{
		file:   "forgejo.json",
		rule:   map[string]any{"repository": "octo/web", "ref": "refs/heads/main", "event_name": []any{"push", "workflow_dispatch"}},
		fit:    []change{{"event_name": "workflow_dispatch"}},
		refuse: map[string]change{"a pull request": {"event_name": "pull_request", "ref": "refs/pull/7/head"}, "pull_request_target": {"event_name": "pull_request_target"}, "another branch": {"ref": "refs/heads/dev"}},
	},
	{
		file: "gitlab.json",
		rule: map[string]any{"project_id": "20", "ref": "main", "ref_type": "branch", "ref_protected": true, "environment": "production"},
		fit:  []change{{"pipeline_source": "web"}, {"project_id": 20.0}},
		refuse: map[string]change{
			"a tag called main":             {"ref_type": "tag", "ref_path": "refs/tags/main", "sub": "project_path:octo/web:ref_type:tag:ref:main"},
			"a merge request":               {"ref": "refs/merge-requests/3/head", "pipeline_source": "merge_request_event"},
			"a project of the same name":    {"project_id": "21"},
			"a branch that is no protected": {"ref_protected": "false"},
			"another environment":           {"environment": "staging"},
		},
	},
	{
		file:   "buildkite.json",
		rule:   map[string]any{"organization_id": "0184990a-477b-4fa8-9968-496074483ce0", "pipeline_slug": "web", "build_branch": "main", "sub": "organization:acme:pipeline:web:ref:refs/heads/main:commit:*:step:*"},
		fit:    []change{{"build_number": 6.0}},
		refuse: map[string]change{"another organization": {"organization_id": "7"}, "another pipeline": {"pipeline_slug": "db"}, "a tag": {"sub": "organization:acme:pipeline:web:ref:refs/tags/main:commit:1:step:x"}},
	},
	{
		file: "circleci.json",
		rule: map[string]any{
			"sub":                          "org/0b1c7d3e-0000-4000-8000-000000000001/project/5e2f0000-0000-4000-8000-000000000002/user/*/vcs-origin/github.com/octo/web/vcs-ref/refs/heads/main",
			"oidc.circleci.com/ssh-rerun":  false,
			"oidc.circleci.com/project-id": "5e2f0000-0000-4000-8000-000000000002",
		},
		refuse: map[string]change{
			"by SSH":         {"oidc.circleci.com/ssh-rerun": true},
			"another branch": {"sub": "org/0b1c7d3e-0000-4000-8000-000000000001/project/5e2f0000-0000-4000-8000-000000000002/user/1/vcs-origin/github.com/octo/web/vcs-ref/refs/heads/dev"},
		},
	},
	{
		file:   "gcp.json",
		rule:   map[string]any{"email": "web@project-1.iam.gserviceaccount.com", "email_verified": true, "google": map[string]any{"compute_engine": map[string]any{"project_id": "project-1"}}},
		hosts:  "google.compute_engine.instance_name",
		host:   "web-7xkq",
		refuse: map[string]change{"the short format": {"google": nil}, "another account": {"email": "db@project-1.iam.gserviceaccount.com"}, "another project": {"google": map[string]any{"compute_engine": map[string]any{"project_id": "project-2", "instance_name": "web-7xkq"}}}},
	},
	{
		file:   "azure.json",
		rule:   map[string]any{"tid": "5f1e0000-0000-4000-8000-00000000000a", "idtyp": "app", "xms_mirid": "/subscriptions/1c2d0000-0000-4000-8000-00000000000d/resourcegroups/web/providers/Microsoft.Compute/virtualMachines/*"},
		hosts:  "oid",
		host:   "3f2c0000-0000-4000-8000-00000000000b",
		refuse: map[string]change{"a person": {"idtyp": "user"}, "another group": {"xms_mirid": "/subscriptions/1c2d0000-0000-4000-8000-00000000000d/resourcegroups/db/providers/Microsoft.Compute/virtualMachines/web-1"}},
	},
	{
		file:   "kubernetes.json",
		rule:   map[string]any{"sub": "system:serviceaccount:ci:runner", "kubernetes.io": map[string]any{"namespace": "ci", "serviceaccount": map[string]any{"name": "runner"}}},
		hosts:  `"kubernetes.io".pod.name`,
		host:   "runner-0",
		refuse: map[string]change{"another account": {"sub": "system:serviceaccount:ci:default"}, "another namespace": {"kubernetes.io": map[string]any{"namespace": "x", "serviceaccount": map[string]any{"name": "runner"}, "pod": map[string]any{"name": "runner-0"}}}},
	},
	{
		file: "aws.json",
		rule: map[string]any{
			"sub": "arn:aws:iam::123456789012:role/web", "https://sts.amazonaws.com/": map[string]any{"aws_account": "123456789012", "ec2_source_instance_arn": "arn:aws:ec2:us-east-1:123456789012:instance/i-*"},
		},
		refuse: map[string]change{"another role": {"sub": "arn:aws:iam::123456789012:role/db"}, "another account": {"sub": "arn:aws:iam::210987654321:role/web"}, "no machine": {"https://sts.amazonaws.com/": map[string]any{"aws_account": "123456789012"}}},
	},
}

func TestIssuers(t *testing.T) {
	for _, is := range issuers {
		text, err := os.ReadFile(filepath.Join("testdata", is.file))
		if err != nil {
			t.Fatal(err)
		}
		issuer := claims(t, string(text))["iss"].(string)
		s := Spec{Name: "main", Claims: is.rule, Scopes: []string{"push"}}
		if is.hosts != "" {
			s.Scopes, s.HostClaim = []string{"follow:web"}, is.hosts
		}
		r, err := New(s, issuer)
		if err != nil {
			t.Errorf("%s: %v", is.file, err)
			continue
		}
		judge := func(c change) bool {
			has := claims(t, string(text))
			maps.Copy(has, c)
			for name, v := range c {
				if f, ok := v.(float64); ok {
					has[name] = claims(t, `{"n":`+jsonText(f)+`}`)["n"]
				}
				if v == nil {
					delete(has, name)
				}
			}
			got, g := Match("i", []*Rule{r}, has)
			if got != nil && g.Host != is.host {
				t.Errorf("%s: the host is %q", is.file, g.Host)
			}
			return got != nil
		}
		for _, c := range append(is.fit, change{}) {
			if !judge(c) {
				t.Errorf("%s %v does not fit: %v", is.file, c, Explain([]*Rule{r}, claims(t, string(text))))
			}
		}
		for name, c := range is.refuse {
			if judge(c) {
				t.Errorf("%s: %s fits", is.file, name)
			}
		}
		if !r.Machines() && is.hosts != "" {
			t.Errorf("%s: no machines", is.file)
		}
	}
}
