// Package unitfile reads systemd's unit files the way systemd does, for judging
// them. It is pure. It follows systemd.syntax(7) and what systemd's parser was
// seen to do, and it fails closed: whatever systemd would skip with a warning,
// or could read in another way, is an error here. What it accepts, systemd reads
// the same.
package unitfile

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxSize is the largest unit file that is read. Real ones have a few KiB. It is
// below systemd's limit for a single line (1 MiB), so that no line can reach that.
const MaxSize = 1<<20 - 1

// File is a parsed unit file.
type File struct {
	// Assignments are in order of appearance; those of a repeated section follow
	// those of its first part, as for systemd.
	Assignments []Assignment
	// Sections holds the section headers in order of appearance.
	Sections []Section
}

// Section is one section header.
type Section struct {
	Name string
	Line int
}

// Assignment is one "Key=Value" line. For most list-like keys an empty Value
// resets what was assigned before.
type Assignment struct {
	Section, Key, Value string
	// Line is where its first line begins, from 1.
	Line int
}

// Error is the first thing that is wrong with a file.
type Error struct {
	Line    int
	Message string
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Message) }

// whitespace is what systemd strips around lines, keys and values.
const whitespace = " \t\n\r"

// Parse reads a unit file. The error is an *Error.
func Parse(data []byte) (File, error) {
	if len(data) > MaxSize {
		return File{}, &Error{1, fmt.Sprintf("the unit file has %d bytes, at most %d are read", len(data), MaxSize)}
	}
	if err := checkBytes(data); err != nil {
		return File{}, err
	}
	p := parser{}
	line := 0
	for raw := range strings.SplitSeq(string(data), "\n") {
		line++
		if err := p.physical(raw, line); err != nil {
			return File{}, err
		}
	}
	if p.continued {
		// systemd takes what it has; a backslash at the very end is a mistake.
		return File{}, &Error{p.start, "the file ends in a line continuation"}
	}
	return p.file, nil
}

// checkBytes refuses what makes a file look other than it is: systemd ends lines
// at NUL and CR too, and skips a byte order mark.
func checkBytes(data []byte) error {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return &Error{1, "the file begins with a byte order mark; remove it"}
	}
	line := 1
	for rest := data; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && n == 1:
			return &Error{line, "not UTF-8"}
		case r == '\n':
			line++
		case r == '\r':
			return &Error{line, "carriage return; use line feeds only"}
		case r < ' ' && r != '\t', r >= 0x7f && r < 0xa0, r == 0xfeff, r == 0x2028, r == 0x2029:
			return &Error{line, fmt.Sprintf("control character %U", r)}
		}
		rest = rest[n:]
	}
	return nil
}

type parser struct {
	file    File
	section string
	// logical is the line so far while it is continued, begun at line start.
	logical   strings.Builder
	continued bool
	start     int
}

// physical takes one line of the file.
func (p *parser) physical(raw string, line int) error {
	// Comments are skipped within a continuation too, which goes on after them.
	if t := strings.TrimLeft(raw, whitespace); t != "" && (t[0] == '#' || t[0] == ';') {
		return nil
	}
	if !p.continued {
		p.start = line
	}
	// A continuation's backslash becomes a space, so that the next line's are
	// counted by themselves.
	p.continued = continues(raw)
	if p.continued {
		p.logical.WriteString(raw[:len(raw)-1] + " ")
		return nil
	}
	p.logical.WriteString(raw)
	text := p.logical.String()
	p.logical.Reset()
	return p.line(text)
}

// continues reports whether a line ends in a backslash that isn't itself escaped.
func continues(text string) bool {
	n := len(text) - len(strings.TrimRight(text, `\`))
	return n%2 == 1
}

// line takes one logical line.
func (p *parser) line(text string) error {
	text = strings.Trim(text, whitespace)
	if text == "" {
		return nil
	}
	if text[0] == '[' {
		if len(text) < 3 || text[len(text)-1] != ']' {
			return &Error{p.start, fmt.Sprintf("%q is not a section header", clip(text))}
		}
		p.section = text[1 : len(text)-1]
		p.file.Sections = append(p.file.Sections, Section{p.section, p.start})
		return nil
	}
	if p.section == "" {
		return &Error{p.start, fmt.Sprintf("%q is outside of any section", clip(text))}
	}
	key, value, ok := strings.Cut(text, "=")
	key = strings.Trim(key, whitespace)
	if !ok || key == "" {
		return &Error{p.start, fmt.Sprintf("%q is not an assignment; write Key=Value", clip(text))}
	}
	p.file.Assignments = append(p.file.Assignments,
		Assignment{Section: p.section, Key: key, Value: strings.Trim(value, whitespace), Line: p.start})
	return nil
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
