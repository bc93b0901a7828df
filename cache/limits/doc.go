// Package limits bounds what those can make grow who talk to the server: connections,
// bodies that come slowly, answers that nobody takes, memory for bodies.
//
// Nobody without a credential can hold more than a share: what counts by address counts
// only connections and requests that have shown none. All others count by credential, and
// everything in total.
package limits
