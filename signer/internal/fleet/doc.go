// Package fleet loads a fleet repo: fleet.yaml, packages/*.yaml, profiles/*.yaml and
// nodes/**/*.yaml. What Load returns is complete and consistent: every file is
// strictly decoded, is named after what is in it, and names only packages,
// registries and teams that are there. What is wrong is reported for all files
// at once.
//
// A fleet is a value; nothing in it may be changed. It says what people
// wrote; package render says what that makes of each node.
package fleet
