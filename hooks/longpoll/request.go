package longpoll

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxWait bounds a parked poll. Proxies cut at 50 or 60 s; the agent asks
// for less than that, curl users may ask for more.
const maxWait = 300 * time.Second

// Wait reads "Prefer: wait=N" (RFC 7240), or ?wait=N for shell scripts; 0 if
// there is neither.
func Wait(req *http.Request) time.Duration {
	values := []string{}
	for _, line := range req.Header.Values("Prefer") {
		values = append(values, strings.FieldsFunc(line, func(r rune) bool { return r == ',' || r == ';' })...)
	}
	if q := req.URL.Query().Get("wait"); q != "" {
		values = append(values, "wait="+strings.TrimSuffix(q, "s"))
	}
	for _, v := range values {
		if n, ok := strings.CutPrefix(strings.TrimSpace(v), "wait="); ok {
			if secs, err := strconv.Atoi(strings.Trim(n, `"`)); err == nil && secs > 0 {
				return min(time.Duration(secs)*time.Second, maxWait)
			}
		}
	}
	return 0
}

// Matches is the comparison of If-None-Match (RFC 9110, 13.1.2), weak.
func Matches(header, etag string) bool {
	for item := range strings.SplitSeq(header, ",") {
		item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
		if item == "*" || item == etag {
			return true
		}
	}
	return false
}

// JSON encodes a value as an answer with status 200. Its ETag is a hash of the
// bytes, so that it survives a restart and never lies.
func JSON(value any) (Answer, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return Answer{}, err
	}
	sum := sha256.Sum256(text)
	return Answer{Status: http.StatusOK, ETag: `"` + hex.EncodeToString(sum[:16]) + `"`, Body: append(text, '\n')}, nil
}
