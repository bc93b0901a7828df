package limits

import (
	"net/http"
	"time"
)

// Answers are large ones, each of which is in memory until its client has taken it: few at once, and
// those with a good token do not wait for those without.
type Answers struct{ known, unknown *Slots }

const (
	answersAtOnce  = 32
	answerPatience = 10 * time.Second
)

// NewAnswers makes room for them.
func NewAnswers() *Answers { return &Answers{NewSlots(answersAtOnce), NewSlots(answersAtOnce)} }

// Take waits a moment for room for the answer to a request, and returns ErrBusy if there is none. token
// is a good one, or "". done gives it back.
func (a *Answers) Take(req *http.Request, token string) (done func(), err error) {
	slots := a.known
	if token == "" {
		slots = a.unknown
	}
	if done, err = slots.Take(req.Context(), Who(token, req), answerPatience); err != nil {
		err = ErrBusy
	}
	return done, err
}
