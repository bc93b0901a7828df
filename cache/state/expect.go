package state

import "context"

// Key names an entry.
type Key struct{ Bucket, Key string }

// Expected is what an Update is going to read. A state that is far away reads it at once, together with
// taking the locks, and spares a round trip for each. It changes nothing else: what was not expected is read
// when it is asked for, and what was expected need not be asked for.
type Expected struct {
	Keys []Key
	// Append is that it adds a record to a log.
	Append bool
}

type expectedKey struct{}

// Expect is a context for one Update that is going to read and append these.
func Expect(ctx context.Context, e Expected) context.Context {
	return context.WithValue(ctx, expectedKey{}, e)
}

// ExpectedBy is what an Update with a context is going to read, for implementations.
func ExpectedBy(ctx context.Context) Expected {
	e, _ := ctx.Value(expectedKey{}).(Expected)
	return e
}
