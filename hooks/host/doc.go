// Package host is the hosts that follow channels: what each reported, which
// machine it is, when it was heard of, and what people said of it.
//
// # What it promises
//
//   - What a host reported is stored as it was said. Reports are ordered by
//     (start id, counter); a stale one is refused, and one that is said again
//     is taken and changes nothing.
//   - A host name belongs to the instance that reported by it first. Another that
//     uses the name is refused and is an alarm, until a person says which of them
//     it shall be (docs/design/012-host-identity.md).
//
// Whoever changes what is kept of a host holds the lock "host:<name>" of the
// state; of an instance, "instance:<instance>" as well. Presence is in memory, and
// nothing that is stored rests on it.
//
// # Format
//
// In the state, as JSON but for logs:
//
//	hooks/host      <name>                Record
//	hooks/owner     <name>                Owner
//	hooks/instance  <instance>            sightings, at name/<host> where it is ""
//	hooks/log       <name> NUL <attempt>  text
package host
