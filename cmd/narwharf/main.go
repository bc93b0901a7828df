// Narwharf is a Nix binary cache whose channels are deploy targets.
// `narwharf help` lists the commands; docs/ has the rest.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program, so that tests can run it in their own process.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var e exitError
	if errors.As(err, &e) && e.err == nil {
		return e.code
	}
	fmt.Fprintln(stderr, "narwharf: "+err.Error())
	if errors.As(err, &e) {
		return e.code
	}
	return 2
}
