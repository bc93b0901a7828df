// Package hooks is channels: names with an ordered history of signed releases,
// the hosts that follow them, and what is told to whom and when.
//
// # What it promises
//
//   - A release is promoted whole or not at all. Its file
//     (channels/<name>/<seq>) is durable before the channel points at it, and
//     the change of the channel and its line in the audit log are one
//     transaction. Only then is anybody woken.
//   - Seq only grows, for as long as the name exists and beyond its deletion.
//   - Of two promoters who read the same state one wins.
//   - A promoted closure was complete in the cache, byte for byte what the
//     promoter signed.
//   - A poll that is parked holds one goroutine and nothing of the database. It
//     waits outside of net/http, which would spend 20 KiB on it (see lot).
//   - What a host reported is stored as it was said. Reports are ordered by
//     (start id, counter); a stale one is refused, and one that is said again
//     is taken and changes nothing.
//   - A host is told that it may reboot after its slot is durable. The slot is
//     held until the host has reported that the reboot is over, polls on the
//     boot of before when its permission has run out, or a person takes it away;
//     neither time nor a restart frees it. So of the hosts of a group never more
//     are down by permission than the policy had slots for, and none that is up
//     keeps the others waiting (see line.go).
//   - Outside of a channel's windows nobody is granted anything. What time alone
//     changes of an answer wakes the polls that wait for it (see alarms).
//
// The server cannot make a host run what no promoter signed. It verifies
// signatures all the same, so that mistakes show at the promote and not on a
// thousand hosts.
package hooks
