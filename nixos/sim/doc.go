// Package sim is a host in memory: it keeps the contract of nixos.Host, with
// systems that misbehave as they are told, and it can be killed, or lose its
// power, before and after every single effect.
//
// A World checks by itself, at every effect and every report, what must always
// be true: that a report says what is, that nothing is activated twice, that
// the profile names no system that did not pass its probation, that what may
// be needed is protected from the garbage collector. What it finds wrong is in
// Violations.
package sim
