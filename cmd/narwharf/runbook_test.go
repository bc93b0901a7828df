package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestRunbookLeakedKey types what docs/runbook.md says of a promoter's key that leaked, line by
// line, after a thief has promoted with it.
func TestRunbookLeakedKey(t *testing.T) {
	text, err := os.ReadFile("../../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)\n## A promoter's key leaked\n.*?\n```\n(.*?)```\n").FindSubmatch(text)
	if block == nil {
		t.Fatal("the entry has no commands")
	}
	lines := strings.Split(strings.TrimSpace(string(block[1])), "\n")
	if len(lines) != 6 || !strings.Contains(lines[0], "channel keys web revoke alice-1 ") {
		t.Fatalf("this test knows six commands, not %q", lines)
	}
	script := runbookBefore
	for _, l := range lines {
		// ./result is in the cache here, and in no local store.
		script += "exec " + strings.Replace(l, "web ./result", "web $ONE --from-cache --content-key cache.pub", 1) + "\n"
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "leaked.txtar"), []byte(script+runbookAfter), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Dir: dir, RequireExplicitExec: true, Cmds: scriptCommands, Setup: func(env *testscript.Env) error {
		env.Values[serverKey{}] = new(scriptServer)
		env.Setenv("NARWHARF_CONFIG", "")
		return nil
	}})
}

const (
	runbookBefore = `exec narwharf init --key-name cache-1 --listen 127.0.0.1:0 ./data
cp data/keys/cache-1.pub cache.pub
exec narwharf token new --config data/config.toml --name ci --scope push --scope promote:* --out token
exec narwharf token new --config data/config.toml --name root --scope admin --out admin.token
serve --config data/config.toml
env NARWHARF_SERVER=$URL
env NARWHARF_TOKEN_FILE=token
env HOME=$WORK
env XDG_CONFIG_HOME=$WORK
upload -auth token one 'what is good'
env ONE=$UPLOADED
upload -auth token two 'what the thief likes'
env TWO=$UPLOADED
exec narwharf key generate alice-1 --out alice.sec
cp stdout alice.pub
exec narwharf key generate bob-1 --out bob.sec
cp stdout bob.pub
exec narwharf key generate carol-1 --out carol.sec
cp stdout carol.pub
exec narwharf key generate recovery-1 --out recovery.sec
cp stdout recovery.pub
exec narwharf promote web $ONE --from-cache --content-key cache.pub --kind path --origin 127.0.0.1/web --key alice.sec --seq 40
exec narwharf channel keys web add bob.pub --key alice.sec
exec narwharf promote web $ONE --from-cache --content-key cache.pub --key alice.sec --seq 42
exec narwharf channel keys web recovery recovery.pub --token-file admin.token
exec narwharf promote web $TWO --from-cache --content-key cache.pub --key alice.sec
stdout 'seq 43'
`
	runbookAfter = `stdout '^version +2$'
stdout '^key +carol-1:'
stdout '^revoked +alice-1:'
! exec narwharf promote web $TWO --from-cache --content-key cache.pub --key alice.sec --if-seq 44
stderr 'needed signatures are good'
exec narwharf promote web $ONE --from-cache --content-key cache.pub --key carol.sec --trusted-key bob.pub
`
)
