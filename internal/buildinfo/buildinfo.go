// Package buildinfo tells which build of a binary this is. The Makefile sets
// version and date with -ldflags -X; a plain `go build` says "dev".
package buildinfo

import "time"

var (
	version = "dev"
	// date is RFC 3339: the commit's time, so that builds are reproducible.
	date = ""
)

// Version is the release, "v0.1.0", or "dev".
func Version() string { return version }

// Time is when the source of this build was committed; zero if unknown. A clock
// that shows an earlier time is wrong.
func Time() time.Time {
	t, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}
