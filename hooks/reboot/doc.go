// Package reboot is slots: how many hosts of a group may reboot at a time, who
// may next, and which are overdue (docs/design/014-reboot-slots.md).
//
// # What it promises
//
//   - A host is told that it may reboot after its slot is durable. The slot is
//     held until the host has reported that the reboot is over, polls on the
//     boot of before when its permission has run out, or a person takes it away;
//     neither time nor a restart frees it. So of the hosts of a group never more
//     are down by permission than the policy had slots for, and none that is up
//     keeps the others waiting.
//   - Whether there is room for a slot is read in the transaction that takes it,
//     under the lock of its group. Who takes it is decided by who asks, and in
//     memory: a host that did not use its last one lets others go first.
//
// # Format
//
// In the state, as JSON: hooks/slot  <host>  Slot. What a host did not use is in
// its record (host.Unused).
package reboot
