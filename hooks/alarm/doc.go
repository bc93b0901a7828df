// Package alarm keeps the alarms that are open: what they are about, since when, who took them.
//
// An alarm begins as an event of the audit log with alarm: true, which whoever raises it writes in
// the transaction that has the reason. A Book follows the log (Tend) and keeps a row for each kind
// and subject. The event that ends an alarm closes its row, by the table in rule.go; a person can
// close it, too, and take it before. Where it has read to is stored with the rows, so no event
// counts twice or is missed, and no transaction of somebody else's waits for it. What is asked of a
// Book is answered as of the end of the log.
//
// Rows are in the bucket hooks/alarm, by kind and subject; the last that were closed in
// hooks/alarm-closed. Both have a bound. What was taken or closed is an event, too: alarm.taken,
// alarm.closed. docs/design/044-alarms.md says why it is done so.
package alarm
