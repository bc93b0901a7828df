// Package series is how some numbers were: every five minutes for two days, and every hour
// for 90 days. It is for the page; Prometheus is the place for more.
//
// # What it promises
//
//   - A group is the cache, or a channel with its hosts. It has at most MaxColumns numbers, and there
//     are at most MaxGroups groups; nothing is kept of single hosts. So the whole is bounded.
//   - A counter's record is what was counted within its time. A counter that is below what it
//     was has begun anew. What was counted since the last record is written when the server stops, and
//     lost when it is killed.
//   - A gauge's record is its last value within the time.
//   - Servers that share a state add to the same records, in transactions: each counts
//     what it answered itself, and all have the same gauges.
//   - Time is the state's. A record says which time it is of, so that after a jump of the clock nothing
//     old is shown as new, and what is of the future is not shown before.
//   - What was written of a channel goes within five minutes of the channel.
//
// # Format
//
// In the state:
//
//	series/columns      GROUP  JSON list of Column; new ones are put at the end
//	series/5m/GROUP     8 bytes, big endian: the number of five minutes since 1970, modulo 576
//	series/1h/GROUP     the same of hours, modulo 2160
//
// The value of the last two is numbers of 8 bytes, big endian: first that of the
// five minutes or hours since 1970, then one for each column, 2^64-1 where it is not known.
// Columns that came later are not in older records.
package series
