// Package remote is the server as a host's agent meets it: all that is said over
// HTTP. A Server polls, reports, has a system on trial confirmed, fetches manifests and
// narinfos and posts logs. Join is what a host says before it has a token of its own.
//
// It knows nothing of the host that it speaks for: agents of real hosts and of
// simulated ones use the same.
//
// # What it promises
//
// Of the reports that are handed over the newest is delivered, again and again until
// the server has it; older ones are dropped. At most one report is on its way. A server
// that knows a later start of the agent than this one – the clock was set back, the
// journal is gone – is told a later one still, so that it believes the report.
package remote
