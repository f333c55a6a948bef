// Package points takes each point of the trust verification out of the code, one after another, and
// insists that the named test then fails: a test that can't fail shows nothing. The points are those of
// docs/threat-model.md, "The ten points". It builds tests some thirty times, so only `make points` runs it.
package points
