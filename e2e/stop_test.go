package e2e

import (
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// SIGTERM lets an upload in flight finish, however slow, and takes no new ones.
func TestStopFinishesUploads(t *testing.T) {
	t.Parallel()
	s := NewServer(t, nil)
	token := s.Token("ci", "push")
	p := NewPath("slow", RandomNAR(800, 200_000))
	u := NewUploader(t, s.URL(), token)
	doc, file := u.Describe(p)

	slow := DialRaw(t, s.Addr())
	slow.Send("PUT /" + doc.URL + " HTTP/1.1\nHost: x\nAuthorization: Bearer " + token + "\nContent-Length: " + itoa(len(file)) + "\n\n")
	half := len(file) / 2
	slow.SendBytes(file[:half])
	time.Sleep(200 * time.Millisecond)
	s.Signal(syscall.SIGTERM)
	for i := range 4 { // two seconds more
		time.Sleep(500 * time.Millisecond)
		if !s.Running() {
			t.Fatalf("the server did not wait for an upload in flight\n%s", s.LogTail())
		}
		from := half + i*(len(file)-half)/4
		slow.SendBytes(file[from : half+(i+1)*(len(file)-half)/4])
		if r, err := u.Try("GET", "/nix-cache-info", "", nil); err == nil && r.Status < 500 && i > 0 {
			t.Errorf("a stopping server takes new connections: %v", r)
		} else if errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	if reply, _ := slow.Answer(http.MethodPut); !reply.OK() {
		t.Errorf("the upload in flight: %v", reply)
	}
	s.waitExit(10 * time.Second)
	s.Fsck()
	s.Start()
	if r := u.Head("/" + doc.URL); r.Status != http.StatusOK {
		t.Errorf("what was finished while stopping: %v", r)
	}
	u.Upload(p)
}
