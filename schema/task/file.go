package task

import (
	"fmt"
	"io/fs"
	"strconv"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
)

// DefaultMode is the mode of a written file whose task names none.
const DefaultMode fs.FileMode = 0o640

// MaxContent is the most bytes that one written file or unit may have.
const MaxContent = 512 << 10

// parseMode reads what names.Mode accepts; "" is DefaultMode.
func parseMode(s string) fs.FileMode {
	bits, err := strconv.ParseUint(s, 8, 9)
	if err != nil {
		return DefaultMode
	}
	return fs.FileMode(bits)
}

// checkFile validates the fields that all written files have.
func checkFile(c *strict.Context, path, mode, owner, group string) {
	check(c, "path", names.AbsolutePath(path))
	if mode != "" {
		check(c, "mode", names.Mode(mode))
	}
	if owner != "" {
		check(c, "owner", names.Owner(owner))
	}
	if group != "" {
		check(c, "group", names.Owner(group))
	}
}

// checkContent refuses what no text file may hold.
func checkContent(content string) error {
	if len(content) > MaxContent {
		return fmt.Errorf("found %d bytes; at most %d are allowed: put large files into a package", len(content), MaxContent)
	}
	for i := range len(content) {
		if content[i] == 0 {
			return fmt.Errorf("found a NUL byte at offset %d; none is allowed", i)
		}
	}
	return nil
}
