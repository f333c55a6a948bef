package strict_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gpuaas/node-agent/schema/strict"
)

// checkPositions fails unless every error of a file points into it, in order.
func checkPositions(t *testing.T, data []byte, err error) {
	t.Helper()
	var es strict.Errors
	if !errors.As(err, &es) || len(es) == 0 {
		t.Fatalf("error is %T %v", err, err)
	}
	lines := strings.Split(string(data), "\n")
	line, column := 0, 0
	for _, e := range es {
		if e.Line < 1 || e.Line > len(lines) {
			t.Fatalf("%v: line %d of %d", e, e.Line, len(lines))
		}
		if width := utf8.RuneCountInString(lines[e.Line-1]); e.Column < 1 || e.Column > width+1 {
			t.Fatalf("%v: column %d of %d", e, e.Column, width)
		}
		if e.Line < line || e.Line == line && e.Column < column {
			t.Fatalf("%v: comes after line %d, column %d", e, line, column)
		}
		line, column = e.Line, e.Column
		if e.Message == "" || strings.Contains(e.Error(), "\n") && !strings.Contains(e.Message, "\n") {
			t.Fatalf("error %q spans lines", e)
		}
	}
}

func FuzzStrict(f *testing.F) {
	for _, s := range []string{
		"", "kind: D\nname: n\nneed: [x]\n", "a: &a [*a]\n", "<<: {a: b}\n", "? [a]\n: b\n", "--- a\n...\n--- b\n", "%YAML 1.1\n---\na: b\n",
		"a: !!binary x\n", "- - - - a\n", "{a: {b: {c: [", "a: |\n  b\n c\n", "\"\\u2028\": '\n'\n", "a: >-\n\n\n  b\n", "\ta: b", "a:\r\n  b: c\r\n", "# c\n# d\n",
		"items: [{name: a, port: 1}, , {name: }]\n", "labels: {? a : b, \"\": c}\nlabels: x\n", "when: 2026-13-45\n", "tiny: 1e3\ncount: 0x10\n", "a: *b\n", "pair: [\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var out document
		if err := strict.Decode("f", data, &out); err != nil {
			checkPositions(t, data, err)
		}
		if _, err := strict.Parse("f", data); err != nil {
			checkPositions(t, data, err)
		}
	})
}
