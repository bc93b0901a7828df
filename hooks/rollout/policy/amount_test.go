package policy_test

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"narwharf/hooks/rollout/policy"
)

func TestAmount(t *testing.T) {
	for _, c := range []struct {
		text     string
		of       int
		up, down int
	}{
		{`3`, 10, 3, 3}, {`"3"`, 10, 3, 3}, {`0`, 10, 0, 1}, {`"25%"`, 10, 3, 2}, {`"25%"`, 0, 0, 1}, {`"1%"`, 10, 1, 1},
		{`"12.5%"`, 8, 1, 1}, {`"0.01%"`, 10000, 1, 1}, {`"100%"`, 7, 7, 7}, {`"33.3%"`, 3, 1, 1},
	} {
		var a policy.Amount
		if err := json.Unmarshal([]byte(c.text), &a); err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if up, down := a.Up(c.of), a.Down(c.of); up != c.up || down != c.down {
			t.Errorf("%s of %d: up %d, down %d, want %d and %d", c.text, c.of, up, down, c.up, c.down)
		}
	}
	for _, text := range []string{`"25 %%"`, `"%"`, `"1.%"`, `"1.234%"`, `"100.01%"`, `-1`, `"-1%"`, `1e3`, `null1`, `true`, `{}`, `"1.-5%"`} {
		var a policy.Amount
		if err := json.Unmarshal([]byte(text), &a); err == nil {
			t.Errorf("%s is read as %s", text, a)
		}
	}
}

// What is printed is read as the same, and a share lies between its two roundings.
func TestAmountProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := policy.Amount{N: rapid.IntRange(0, 10000).Draw(t, "n"), Percent: rapid.Bool().Draw(t, "percent")}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var b policy.Amount
		if err := json.Unmarshal(text, &b); err != nil || a != b {
			t.Fatalf("%s is read as %v (%v)", text, b, err)
		}
		of := rapid.IntRange(0, 1_000_000).Draw(t, "of")
		if a.Percent && (a.Up(of) > of || a.Up(of)*10000 < of*a.N || a.Down(of)*10000 > max(of*a.N, 10000)) {
			t.Fatalf("%s of %d: up %d, down %d", a, of, a.Up(of), a.Down(of))
		}
	})
}

// Selectors that are said not to meet pick no host both, and what is printed is read.
func TestSelectorProperties(t *testing.T) {
	conditions := rapid.SliceOfN(rapid.SampledFrom([]string{"a=1", "a=2", "a!=1", "a!=2", "a", "!a", "b=1", "b!=1", "b", "!b"}), 0, 3)
	labels := rapid.MapOf(rapid.SampledFrom([]string{"a", "b"}), rapid.SampledFrom([]string{"1", "2", "3"}))
	selector := func(t *rapid.T, name string) policy.Selector {
		text := ""
		for i, c := range conditions.Draw(t, name) {
			if i > 0 {
				text += ","
			}
			text += c
		}
		s := policy.MustSelect(text)
		if s.String() != text {
			t.Fatalf("%q is printed as %q", text, s)
		}
		return s
	}
	rapid.Check(t, func(t *rapid.T) {
		x, y, l := selector(t, "x"), selector(t, "y"), labels.Draw(t, "labels")
		if !x.Meets(y) && x.Matches(l) && y.Matches(l) {
			t.Fatalf("%q and %q are said never to meet, and both pick %v", x, y, l)
		}
		if x.Meets(y) != y.Meets(x) {
			t.Fatalf("%q meets %q one way only", x, y)
		}
	})
}
