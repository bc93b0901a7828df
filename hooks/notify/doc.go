// Package notify tells other programs what happens: it posts events of the audit log to the URLs
// of [[notify]].
//
// The queue of a target is the audit log itself: stored is the id of the first event that it has
// not taken, in the bucket hooks/notify, by the target's name. So an event is queued in the very
// transaction that it tells of, at no cost for who makes that, and a restart loses none. Events go
// out one at a time, in order, at least once; those of a target wait for nobody else's. What it
// does not take is sent again, after pauses that grow. Above a number of events, and beyond an age,
// the oldest are dropped, which is counted and an alarm, notify.failing.
//
// A request is signed as Standard Webhooks has it (https://www.standardwebhooks.com): the headers
// webhook-id, webhook-timestamp, webhook-signature. Redirects are not followed; private addresses
// and plain http are for targets that say so. docs/notify.md has the format of bodies,
// docs/design/045-notifications.md why it is done so.
package notify
