package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"narwharf": main,
	})
}

// TestScripts runs testdata/script: the real program, each script a theme.
// The commands that scripts have beside those of testscript stand in
// script_test.go.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                scriptCommands,
		Setup: func(env *testscript.Env) error {
			env.Values[serverKey{}] = new(scriptServer)
			env.Setenv("NARWHARF_CONFIG", "") // of whoever runs the tests
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			if os.Getuid() != 0 && os.Getenv("NARWHARF_CI") == "1" {
				return false, fmt.Errorf("NARWHARF_CI=1 and this is not root")
			}
			return os.Getuid() == 0, nil
		},
	})
}
