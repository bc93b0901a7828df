package main

import (
	"fmt"
	"strings"

	"narwharf/hooks/api"
	"narwharf/hooks/api/alarm"
)

// exerciseTelling has a host fail, and somebody look after that.
func (s *apiServer) exerciseTelling(follow string) {
	const list, targets = "/api/v1/alarms", "/api/v1/notify"
	const take, end, try = list + "/:alarm/take", list + "/:alarm/close", targets + "/:target/test"
	fail := func(attempt string) {
		s.t.Helper()
		text := s.status(2, func(st *api.Status) {
			st.Target, st.State, st.Attempt, st.Error = "web-9", api.Failed, attempt, "it does not boot"
			st.Counter += int64(len(attempt))
		})
		s.wantAPI(204, "PUT", apiHost+"/status", "/api/v1/hosts/web-9/status", text, follow)
	}
	fail("b")
	id := s.alarm("host.state")
	for _, method := range []string{"GET", "HEAD"} {
		for _, query := range []string{"", "?closed=1", "?channel=web"} {
			s.wantAPI(200, method, list, list+query, "", s.operate)
		}
		s.wantAPI(403, method, list, list, "", follow)
		s.wantAPI(401, method, list, list, "", "")
		s.wantAPI(200, method, targets, targets, "", s.operate)
		s.wantAPI(200, method, "/api/v1/replicas", "/api/v1/replicas", "", s.operate)
		s.wantAPI(403, method, "/api/v1/replicas", "/api/v1/replicas", "", follow)
	}
	s.wantAPI(400, "GET", list, list+"?channel=We", "", s.operate)
	s.wantAPI(200, "POST", take, list+id+"/take", "", s.operate)
	s.wantAPI(200, "POST", take, list+id+"/take", `{"reason":"on it"}`, s.operate)
	s.wantAPI(413, "POST", take, list+id+"/take", `{"reason":"`+strings.Repeat("x", 9<<10)+`"}`, s.operate)
	s.wantAPI(404, "POST", take, list+"/999999/take", "", s.operate)
	s.wantAPI(200, "POST", try, targets+"/ops/test", `{"text":"hello"}`, s.operate)
	s.wantAPI(404, "POST", try, targets+"/dev/test", "", s.operate)
	s.wantAPI(400, "POST", end, list+id+"/close", "", s.operate)
	s.wantAPI(200, "POST", end, list+id+"/close", `{"reason":"it boots now"}`, s.operate)
	s.wantAPI(404, "POST", end, list+id+"/close", `{"reason":"it boots now"}`, s.operate)
	fail("bb")
	s.alarm("host.state")
}

// alarm is the id of an alarm that is open, with a slash before it.
func (s *apiServer) alarm(kind string) string {
	s.t.Helper()
	c, err := api.NewClient(api.ClientOptions{Servers: []string{s.url}, Token: s.admin})
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := alarm.Client{Client: c}.List(s.t.Context(), alarm.Query{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range all {
		if a.Kind == kind {
			return fmt.Sprint("/", a.ID)
		}
	}
	s.t.Fatalf("no alarm %s is open: %+v", kind, all)
	return ""
}

// rollOut promotes a release by a roll-out.
func (s *apiServer) rollOut(seq int64) {
	s.t.Helper()
	const policy = apiChannel + "/policy"
	etag := s.wantAPI(200, "GET", policy, "/api/v1/channels/web/policy", "", s.operate).Get("Etag")
	s.wantAPI(200, "PUT", policy, "/api/v1/channels/web/policy", `{"rollout":{"waves":[{"max":"100%"}]},"windows":[{"from":"00:00","to":"00:00"}],"reboot_slots":1}`, s.operate, "If-Match: "+etag)
	s.wantAPI(200, "PUT", apiChannel, "/api/v1/channels/web", s.promotion(seq, nil), s.admin, fmt.Sprintf("If-Match: %q", fmt.Sprint(seq-1)))
}
