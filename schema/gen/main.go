// Gen writes the JSON Schemas of package v1. Run it by `go generate
// ./schema/...`, which starts it in the folder schema/v1.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run("jsonschema", ".."); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// run writes the schemas into out; source is the folder schema of the source tree.
func run(out, source string) error {
	files, err := generate(source)
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(out, name), data, 0o644); err != nil {
			return fmt.Errorf("cannot write a schema: %w", err)
		}
	}
	return nil
}
