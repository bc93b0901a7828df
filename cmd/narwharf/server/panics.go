package server

import (
	"log/slog"
	"net/http"
	"runtime/debug"
)

// panics logs a fault of this program, of which the client sees a connection that ends. To
// net/http it is one of many reasons for that, which are of no interest to people.
func panics(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if v != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				log.Error("a fault of narwharf: please report it", "method", req.Method, "path", req.URL.Path, "panic", v, "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}()
		h.ServeHTTP(w, req)
	})
}
