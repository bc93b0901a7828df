package rollout_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"narwharf/cmd/narwharf/rollout"
)

var update = flag.Bool("update", false, "write what the commands print into docs/rollouts.md")

var (
	policyBlock  = regexp.MustCompile("(?s)```json (\\S+)\n(.*?)```\n")
	commandBlock = regexp.MustCompile("(?s)```\n\\$ narwharf simulate (.*?)\n(.*?)```\n")
)

// TestRollouts types the commands of docs/rollouts.md: they print what stands there.
func TestRollouts(t *testing.T) {
	const name = "../../../docs/rollouts.md"
	page, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	policies := policyBlock.FindAllStringSubmatch(string(text), -1)
	for _, m := range policies {
		if err := os.WriteFile(m[1], []byte(m[2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(policies) != 5 {
		t.Errorf("%s has %d policies, not 5", name, len(policies))
	}
	fresh := commandBlock.ReplaceAllStringFunc(string(text), func(block string) string {
		line := commandBlock.FindStringSubmatch(block)[1]
		return "```\n$ narwharf simulate " + line + "\n" + typed(t, line) + "```\n"
	})
	if fresh == string(text) {
		return
	}
	if !*update {
		t.Fatalf("%s shows something else than the commands print: run go test ./cmd/narwharf/rollout -update", name)
	}
	if err := os.WriteFile(page, []byte(fresh), 0o644); err != nil {
		t.Fatal(err)
	}
}

func typed(t *testing.T, line string) string {
	t.Helper()
	var out bytes.Buffer
	c := rollout.Commands()[0]
	c.SetArgs(strings.Fields(line))
	c.SetOut(&out)
	c.SetErr(&out)
	if err := c.Execute(); err != nil {
		t.Errorf("narwharf simulate %s: %v", line, err)
	}
	return out.String()
}

// Mistakes are said in words.
func TestMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{"good.json": `{"rollout": {}}`, "windows.json": `{"windows": []}`, "wrong.json": `{"rollout": {"wave": []}}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, words := range map[string]string{
		"--policy none.json":                      "no such file",
		"--policy wrong.json":                     `"wave"`,
		"--policy windows.json":                   `no "rollout"`,
		"--policy good.json --hosts 0":            "not from 1 to",
		"--policy good.json --fail 3":             "no share like 2%",
		"--policy good.json --label site=fra":     "not a label with its hosts",
		"--policy good.json --label site=fra:200": "and there are 100",
		"--policy good.json --download x":         "not a time like 20s",
		"--policy good.json --seeds 0":            "--seeds 0",
	} {
		c := rollout.Commands()[0]
		c.SilenceUsage, c.SilenceErrors = true, true
		c.SetArgs(strings.Fields(line))
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v, want words with %q", line, err, words)
		}
	}
}
