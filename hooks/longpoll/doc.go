// Package longpoll parks GETs whose answer has not changed until it does.
//
// A poll is answered at once if its ETag is not the one that the caller has, else
// when it changes or when the caller's patience is over. It joins its topics, then
// looks, then waits: whatever changes after the look wakes it, so no change is
// missed and no message is queued for anybody. It may be woken for nothing.
//
// While parked a poll holds one goroutine, and of its request what it needs for
// the answer. If an http.Server serves the Listener, a poll waits outside of
// net/http, which would keep 10 KiB of buffers, two goroutines with 10 KiB of
// stack and the whole request for each: here it is one goroutine in a Read of the
// connection, which ends when the client leaves or speaks, when the time is over,
// or when the poll is woken. For a next request the connection goes back to
// net/http as if it had just been accepted. bench/PERFORMANCE.md has what this
// saves. A poll waits in its handler where that cannot be done: the listener is
// not served ([limits] fast_path = false), not HTTP/1.1, a body, HEAD.
// The answer is the same either way, also behind a proxy and with "Connection:
// close", after which the connection is closed.
//
// The package knows nothing of what is polled.
package longpoll
