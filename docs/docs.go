// Package docs has in the program what people read at night without the Internet.
package docs

import _ "embed" // of the runbook

// Runbook is runbook.md, with an entry for each alarm: a heading of the second level, the kind in backticks.
//
//go:embed runbook.md
var Runbook string
