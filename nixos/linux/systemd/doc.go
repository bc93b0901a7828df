// Package systemd is what the agent needs of systemd on its host: runs of
// switch-to-configuration as a transient unit, the units that failed, and what the agent's
// own unit says.
//
// # Runs
//
// A run has the unit name that nixos-rebuild takes, so that people and the agent keep out of
// each other's way, and an ID that is unique for ever. The run's folder <state_dir>/runs/<id>
// has the file "begun" once it was begun, and "result" once it has ended; both are written by
// narwharf agent record, which systemd starts before and after it, so they are there whatever
// became of the agent, and outlive the boot.
package systemd
