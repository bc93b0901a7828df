package live

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"narwharf/cache/limits"
)

// Serve sends a viewer events until he leaves, may not look any more, takes too long, or the server stops.
// An error is from before the first byte.
func (h *Hub) Serve(w http.ResponseWriter, req *http.Request, viewer *Viewer) error {
	v, err := h.join(viewer)
	if err != nil {
		return err
	}
	defer h.leave(v, viewer)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // nginx
	w.WriteHeader(http.StatusOK)
	s := newStream(w)
	s.send([]byte("retry: 2000\n\n"))
	defer limits.Park(req.Context())() // its connection may have to make room
	s.follow(req, v, viewer)
	return nil
}

// stream is the connection to a viewer.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	failed  bool
}

func newStream(w http.ResponseWriter) *stream {
	if a, ok := w.(*limits.Answer); ok {
		w = a.ResponseWriter // events have a deadline of their own
	}
	return &stream{w: w, control: http.NewResponseController(w)}
}

// send sends a piece, which has to be taken in time.
func (s *stream) send(text []byte) {
	if s.failed {
		return
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(patience)) // not every writer has one
	_, err := s.w.Write(text)
	if err == nil {
		err = s.control.Flush()
	}
	_ = s.control.SetWriteDeadline(time.Time{})
	s.failed = err != nil
}

// bye is the last event: the browser is not to come back by itself.
func (s *stream) bye(why error) {
	text, err := json.Marshal(map[string]string{"why": why.Error()})
	if err != nil {
		panic(err) // strings always encode
	}
	s.send(fmt.Appendf(nil, "event: bye\ndata: %s\n\n", text))
}

func (s *stream) follow(req *http.Request, v *view, viewer *Viewer) {
	have := viewer.Seen
	tick := time.NewTicker(alive)
	defer tick.Stop()
	topics := v.hub.topics
	judged, leave := topics.Watch(viewer.Topics...)
	defer func() { leave() }()
	for !s.failed {
		event, id, changed, err := v.next(have)
		if err != nil {
			s.bye(err)
			return
		}
		if have = id; event != nil {
			s.send(event)
			continue
		}
		select {
		case <-changed:
			continue
		case <-judged:
			leave()
			judged, leave = topics.Watch(viewer.Topics...)
		case <-tick.C:
			s.send([]byte(": still here\nevent: alive\ndata:\n\n")) // browsers show comments to nobody
		case <-req.Context().Done():
			return
		case <-topics.Stopping():
			return
		}
		if err := viewer.Still(); err != nil {
			s.bye(err)
			return
		}
	}
}
