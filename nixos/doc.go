// Package nixos is the agent: it makes a host what its channel says, and goes
// back when that does not work out.
//
// # Machine, agent, host
//
// Package machine is the state machine, and pure. Agent carries out the effects
// that it wants, one by one, and saves the journal before each and after it. Host is
// all of the world: package linux is the real one, package sim one in memory that
// can be killed before and after every effect. Tests of the whole on such hosts are
// named world_*_test.go.
//
// A desired document comes in through Agent.poll. Package desired says what it means
// for this host, machine.reconcile acts on that, and Agent.report tells the server.
//
// The table of states and events in docs/agent.md is the machine seen from outside;
// world_rows_test.go is the same table, and world_cells_test.go carries out every cell.
//
// # What it promises
//
// The boot entry and the system profile name nothing that has not passed its
// probation, save for the actions that need a boot to start it. An attempt
// activates once. The highest accepted seq never falls. What may be gone back to
// is protected from the garbage collector before anything is switched. A report
// is made of facts read at its moment: whatever the machine believes, "ok" with
// another current system comes out as "drifted".
//
// # What it trusts
//
// Keys, origin, channel, target and system are of the host's own configuration.
// The server's word can delay, hold, and make probation longer; it can let a host
// reboot that the configuration leaves to it, and lead it back to what the host has
// itself confirmed before, each time by another directive: one that is not above
// the last that was obeyed is not obeyed. The manifest's digest in the signed entry binds the
// bytes of every path: narinfos are held against it before a download, the store
// after it, and what a power cut may have damaged is read again.
package nixos
