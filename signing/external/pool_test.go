package external

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestPool: as many commands at once as it may run, one for a text, and none for what is known.
func TestPool(t *testing.T) {
	k, dir := generate(t, false), t.TempDir()
	line := `cat >"$DIR/in.$$"; mkdir "$DIR/run.$$"; n=$(ls -d "$DIR"/run.* | wc -l); [ "$n" -le 2 ] || echo "$n" >>"$DIR/toomany"
echo >>"$DIR/count"; sleep 0.05; rmdir "$DIR/run.$$"; cat "$DIR/sig.$(cat "$DIR/in.$$")"`
	t.Setenv("DIR", dir)
	for i := range 4 {
		msg := fmt.Sprint("m", i)
		if err := os.WriteFile(filepath.Join(dir, "sig."+msg), []byte(k.Sign([]byte(msg))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := NewPool(&Command{Key: k.Public(), Argv: Shell(line)}, 2)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			msg := []byte(fmt.Sprint("m", i%4))
			if sig, err := p.Signature(msg); err != nil || !k.Public().Verify(msg, sig) {
				t.Errorf("%s: %v", msg, err)
			}
		})
	}
	wg.Wait()
	if _, err := os.Stat(filepath.Join(dir, "toomany")); err == nil {
		t.Error("more than two ran at once")
	}
	if text, err := os.ReadFile(filepath.Join(dir, "count")); err != nil || strings.Count(string(text), "\n") != 4 {
		t.Errorf("it ran %d times, %v", strings.Count(string(text), "\n"), err)
	}
	// What fails fails for those who asked, and is tried anew.
	if _, err := p.Signature([]byte("m9")); err == nil {
		t.Error("nothing was signed, and nobody says so")
	}
	if err := os.WriteFile(filepath.Join(dir, "sig.m9"), []byte(k.Sign([]byte("m9"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Signature([]byte("m9")); err != nil {
		t.Error(err)
	}
}
