package linux_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// What a test's own process is told: that it is one, and where the program is that was built.
const (
	aloneEnv   = "NARWHARF_TEST_ALONE"
	programEnv = "NARWHARF_TEST_PROGRAM"
)

func isAlone() bool { return os.Getenv(aloneEnv) != "" }

// parallel lets a test run beside others, but in a process of its own, where it changes the
// environment.
func parallel(t *testing.T) {
	if !isAlone() {
		t.Parallel()
	}
}

// alone runs a subtest in a process of its own, beside others: Nix, the stand-ins of systemd and
// the agent take PATH, NIX_… and HOME from the environment, of which a process has one. The name
// begins with the version of Nix.
func alone(t *testing.T, name string, run func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		if isAlone() {
			run(t)
			return
		}
		t.Parallel()
		version, _, _ := strings.Cut(name, "/")
		nixDir(t, version) // or it is skipped
		program, err := builtNarwharf()
		if err != nil {
			t.Fatal(err)
		}
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", pattern, "-test.v", "-test.count=1", fmt.Sprintf("-test.short=%v", testing.Short()))
		cmd.Env = append(os.Environ(), aloneEnv+"=1", programEnv+"="+program)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()+" ") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// moreAtOnce lets more tests run at once than there are processors, since they wait for the most
// part: for a probation, for a server that does not answer.
func moreAtOnce() {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		_ = p.Value.Set(fmt.Sprint(3 * runtime.GOMAXPROCS(0))) // a number always is taken
	}
}
