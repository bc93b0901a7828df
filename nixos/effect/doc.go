// Package effect is what the machine asks of the world, and what comes back: an
// Effect is something to be done, its Event is what it came to, and Facts are
// what the host is like at that moment.
//
// Every effect can be begun again after a crash. One that fails is an event like
// any other, with words in its Err.
package effect
