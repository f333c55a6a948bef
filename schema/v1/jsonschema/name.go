package jsonschema

import "strings"

// FileName returns the name of a kind's schema file: "fleet.schema.json".
func FileName(kind string) string { return strings.ToLower(kind) + ".schema.json" }
