package limits

import (
	"context"
	"errors"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"
)

// TestAnswers: one who does not take what he asked for keeps others of his kind waiting at most, and not
// those who have a token.
func TestAnswers(t *testing.T) {
	a := NewAnswers()
	ask := func(address, token string, patience time.Duration) (func(), error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		req.RemoteAddr = address
		return a.Take(req, token)
	}
	var held []func()
	for i := range answersAtOnce * 3 / 4 {
		done, err := ask("192.0.2.1:"+strconv.Itoa(1000+i), "", time.Second)
		if err != nil {
			t.Fatal(i, err)
		}
		held = append(held, done)
	}
	if _, err := ask("192.0.2.1:1", "", 10*time.Millisecond); !errors.Is(err, ErrBusy) {
		t.Errorf("one address has all: %v", err)
	}
	for _, other := range [][2]string{{"192.0.2.2:1", ""}, {"192.0.2.1:1", "ci"}} {
		done, err := ask(other[0], other[1], time.Second)
		if err != nil {
			t.Fatal(other, err)
		}
		done()
	}
	for _, done := range held {
		done()
	}
	if done, err := ask("192.0.2.1:1", "", time.Second); err != nil {
		t.Error(err)
	} else {
		done()
	}
}
