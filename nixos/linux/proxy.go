package linux

import "maps"

// proxyVariables say through which proxy, and trusting whom, a program of Go's reaches a
// server.
var proxyVariables = []string{
	"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR",
}

// changedProxy are assignments that make an environment of then one of now:
// what is not set any more is empty, which means the same.
func changedProxy(then, now map[string]string) (env []string) {
	if now == nil || maps.Equal(then, now) {
		return nil
	}
	for _, name := range proxyVariables {
		if value := now[name]; value != then[name] {
			env = append(env, name+"="+value)
		}
	}
	return env
}
