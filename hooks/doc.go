// Package hooks is the API of channels and hosts over HTTP: routes, handlers, and
// how errors become answers. What the handlers call knows nothing of HTTP:
//
//	hooks/channel   releases
//	hooks/policy    when hosts may act
//	hooks/host      what hosts report, and which machine each is
//	hooks/reboot    whose turn it is to reboot
//	hooks/desired   what a host is told, and what its report changes
//	hooks/audit     the audit log
//	hooks/alarm     what people have to look at
//	hooks/notify    who is told what happens
//	hooks/longpoll  GETs that wait
//	hooks/timers    what changes by the passing of time
//
// Handlers lie here and beneath hooks/call, which holds what they share; the one table of
// routes is in routes.go.
//
// The server cannot make a host run what no promoter signed. It verifies
// signatures all the same, so that mistakes show at the promote and not on a
// thousand hosts.
//
// Whatever is stored is decided in a transaction of the state. Answers are made of
// what is in memory, which notices of the state keep true; the same notices wake
// the polls that wait.
package hooks
