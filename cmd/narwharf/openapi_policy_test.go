package main

import (
	"strings"
	"testing"

	"narwharf/hooks/api"
)

// What a server answers to an operator of a channel's hosts is in the document.
func TestPolicyAnswersAreDocumented(t *testing.T) {
	s := newAPIServer(t)
	const (
		route  = apiChannel + "/policy"
		path   = "/api/v1/channels/web/policy"
		host   = "/api/v1/hosts/web-1"
		policy = `{"windows":[{"from":"00:00","to":"00:00"}],"reboot_slots":1}`
	)
	s.wantAPI(200, "PUT", apiChannel, "/api/v1/channels/web", s.promotion(1, nil), s.admin, `If-Match: "0"`)
	for _, method := range []string{"GET", "HEAD"} {
		etag := s.wantAPI(200, method, route, path, "", s.operate).Get("Etag")
		s.wantAPI(304, method, route, path, "", s.operate, "If-None-Match: "+etag)
		s.wantAPI(401, method, route, path, "", "")
		s.wantAPI(403, method, route, path, "", s.pull)
	}
	s.wantAPI(412, "PUT", route, path, policy, s.operate, `If-Match: "x"`)
	s.wantAPI(413, "PUT", route, path, `{"min_agent":"`+strings.Repeat("x", 1<<17)+`"}`, s.operate)
	s.wantAPI(400, "PUT", route, path, `{"reboot_slot":1}`, s.operate)
	s.wantAPI(200, "PUT", route, path, policy, s.operate)
	s.asksReboot("web-1", 1)
	for _, what := range []string{"/retry", "/revert", "/release"} {
		post := func(status int, path, seq, token string) {
			t.Helper()
			s.wantAPI(status, "POST", apiHost+what, path+what, `{"seq":`+seq+`}`, token)
		}
		post(404, "/api/v1/hosts/none", "1", s.operate)
		post(400, host, "-1", s.operate)
		post(400, host, `"x"`, s.operate)
		if what == "/release" {
			post(404, host, "1", s.operate)
			s.wantAPI(200, "GET", apiHost+"/desired", host+"/desired?channel=web", "", s.admin)
		}
		post(409, host, "7", s.operate)
		post(200, host, "1", s.operate)
	}
}

// asksReboot reports that a host would reboot for a release.
func (s *apiServer) asksReboot(host string, seq int64) {
	s.t.Helper()
	s.wantAPI(204, "PUT", apiHost+"/status", "/api/v1/hosts/"+host+"/status", s.status(seq, func(st *api.Status) {
		st.State, st.Action, st.WaitingFor = api.Armed, "reboot", &api.Waiting{Kind: api.WaitReboot, Asks: true}
	}), s.admin)
}

// letReboot is a host with a reboot slot, in a channel with a window.
func (s *apiServer) letReboot(host string, seq int64) {
	s.t.Helper()
	s.wantAPI(200, "PUT", apiChannel+"/policy", "/api/v1/channels/web/policy", `{"windows":[{"from":"00:00","to":"00:00"}]}`, s.operate)
	s.asksReboot(host, seq)
	s.wantAPI(200, "GET", apiHost+"/desired", "/api/v1/hosts/"+host+"/desired?channel=web", "", s.admin)
}
