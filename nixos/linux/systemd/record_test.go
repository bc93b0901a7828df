package systemd

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOutcome(t *testing.T) {
	for _, c := range []struct {
		r    resultRecord
		exit int
		text string
	}{
		{resultRecord{"success", "exited", "0"}, 0, ""},
		{resultRecord{"exit-code", "exited", "100"}, 100, ""},
		{resultRecord{"timeout", "killed", "TERM"}, -1, "the time limit"},
		{resultRecord{"timeout", "exited", "0"}, -1, "the time limit"},
		{resultRecord{"signal", "killed", "KILL"}, -1, "signal KILL"},
		{resultRecord{"oom-kill", "killed", "KILL"}, -1, "oom-kill killed KILL"},
	} {
		if exit, text := outcome(c.r); exit != c.exit || text != c.text {
			t.Errorf("%+v: %d %q", c.r, exit, text)
		}
	}
}

func TestRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "abc-1-test")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"INVOCATION_ID": "i", "SERVICE_RESULT": "exit-code", "EXIT_CODE": "exited", "EXIT_STATUS": "4"}
	for _, what := range []string{"begin", "end"} {
		if err := Record(dir, what, func(k string) string { return env[k] }); err != nil {
			t.Fatal(err)
		}
	}
	var b begunRecord
	var r resultRecord
	if ok, err := readRecord(filepath.Join(dir, "begun"), &b); !ok || err != nil || b.BootID == "" || b.Invocation != "i" {
		t.Error(b, err)
	}
	if ok, err := readRecord(filepath.Join(dir, "result"), &r); !ok || err != nil || r != (resultRecord{"exit-code", "exited", "4"}) {
		t.Error(r, err)
	}
	if Record(dir, "x", os.Getenv) == nil || Record(filepath.Dir(dir), "begin", os.Getenv) == nil {
		t.Error("it takes anything")
	}
}
