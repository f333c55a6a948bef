// Package jsonschema holds the JSON Schemas (draft 2020-12) of the documents of
// package v1, generated from their Go types. Editors complete and check fleet
// files with them; strict decoding in package v1 has the last word, as it checks
// what a schema can't say.
package jsonschema

import "embed"

//go:embed *.schema.json
var files embed.FS

// ByKind returns the schema of a kind of document, such as "Fleet", or false.
func ByKind(kind string) ([]byte, bool) {
	data, err := files.ReadFile(FileName(kind))
	return data, err == nil
}
