package blob

// Temp is where files lie while they are written.
func (s *FS) Temp() string { return s.tmp }

// Root is where files lie.
func (s *FS) Root() string { return s.root }

// Promised are the bytes that writers at work have taken.
func (s *FS) Promised() int64 { return s.promised.Load() }

// Reserve has the store keep more free: a disk that fills up.
func (s *FS) Reserve(more int64) { s.reserve += more }

// Steps in which room is taken and looked at.
const (
	RoomStep    = roomStep
	UnaskedStep = unaskedStep
)
