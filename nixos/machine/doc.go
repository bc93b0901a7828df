// Package machine is the agent's state machine, and pure: it imports nothing that
// reads a file, a clock or a network. Step makes of a journal and an event another
// journal; Effect says what a journal wants done.
//
// table has a row for each phase of an attempt: the state that people see, the
// effect that is due, where its event leads, what it means that the host was
// booted meanwhile, and, in a phase in which nothing is under way, what the
// host's facts come to. The functions in a row change what the attempt knows and
// return an arrow; turn.follow goes there, and nothing else does.
//
// While an attempt rests, reconcile holds what the server wants against what the
// host is. It acts on the decisions of package desired.
//
// Since the effect that is due follows from the journal alone, starting again
// after a crash needs no code of its own: the same effect is begun again.
package machine
