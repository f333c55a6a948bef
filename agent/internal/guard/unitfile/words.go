package unitfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Command is one command of an Exec line.
type Command struct {
	// Prefixes are the special characters before the path: @ - : + ! |.
	Prefixes string
	// Path is the executable, unquoted and unescaped; specifiers are kept.
	Path string
	// Args are the further words; after the prefix @ the first is argv[0].
	// Specifiers and variables are kept.
	Args []string
}

// prefixes are all that any version of systemd knows.
const prefixes = "@-:+!|"

// ParseExec splits the value of an Exec line (systemd.service(5), "Command
// lines") into its commands, at words that are an unquoted ";". An empty value
// has none: it resets the list.
func ParseExec(value string) ([]Command, error) {
	var commands []Command
	rest := strings.TrimLeft(value, whitespace)
	for rest != "" {
		var word string
		var err error
		if word, rest, err = nextWord(rest); err != nil {
			return nil, err
		}
		if word == ";" {
			continue
		}
		c := Command{Path: strings.TrimLeft(word, prefixes)}
		c.Prefixes = word[:len(word)-len(c.Path)]
		if c.Path == "" {
			return nil, errors.New("a command without an executable")
		}
		for rest != "" {
			if isToken(rest, ";") {
				rest = strings.TrimLeft(rest[1:], whitespace)
				break
			}
			if isToken(rest, `\;`) {
				c.Args = append(c.Args, ";")
				rest = strings.TrimLeft(rest[2:], whitespace)
				continue
			}
			if word, rest, err = nextWord(rest); err != nil {
				return nil, err
			}
			c.Args = append(c.Args, word)
		}
		commands = append(commands, c)
	}
	return commands, nil
}

// isToken reports whether s begins with token as a word of its own.
func isToken(s, token string) bool {
	after, ok := strings.CutPrefix(s, token)
	return ok && (after == "" || strings.IndexByte(whitespace, after[0]) >= 0)
}

// Words splits a value at white space, with quotes and C escapes, as for
// Environment=.
func Words(value string) ([]string, error) {
	var words []string
	rest := strings.TrimLeft(value, whitespace)
	for rest != "" {
		var word string
		var err error
		if word, rest, err = nextWord(rest); err != nil {
			return nil, err
		}
		words = append(words, word)
	}
	return words, nil
}

// nextWord takes the first word off s, which doesn't begin with white space, and
// the white space after it. Quotes may begin and end within a word.
func nextWord(s string) (word, rest string, err error) {
	var b strings.Builder
	var quote byte
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '\\':
			text, n, err := unescape(s[i:])
			if err != nil {
				return "", "", err
			}
			b.WriteString(text)
			i += n
			continue
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote == 0 && strings.IndexByte(whitespace, c) >= 0:
			return b.String(), strings.TrimLeft(s[i:], whitespace), nil
		default:
			b.WriteByte(c)
		}
		i++
	}
	if quote != 0 {
		return "", "", fmt.Errorf("quote %c is not closed", quote)
	}
	return b.String(), "", nil
}

var simpleEscapes = map[byte]string{
	'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v",
	'\\': `\`, '"': `"`, '\'': "'", 's': " ",
}

// unescape reads the escape that s begins with, and says how long it is.
func unescape(s string) (text string, n int, err error) {
	bad := func() (string, int, error) {
		return "", 0, fmt.Errorf("unknown escape %q", clip(s[:min(len(s), 10)]))
	}
	if len(s) < 2 {
		return bad()
	}
	if text, ok := simpleEscapes[s[1]]; ok {
		return text, 2, nil
	}
	number := func(from, digits, base int) (uint64, bool) {
		if len(s) < from+digits {
			return 0, false
		}
		v, err := strconv.ParseUint(s[from:from+digits], base, 32)
		return v, err == nil && v != 0
	}
	switch c := s[1]; {
	case c == 'x':
		if v, ok := number(2, 2, 16); ok {
			return string([]byte{byte(v)}), 4, nil
		}
	case c == 'u' || c == 'U':
		digits := 4
		if c == 'U' {
			digits = 8
		}
		if v, ok := number(2, digits, 16); ok && v <= utf8.MaxRune && utf8.ValidRune(rune(v)) {
			return string(rune(v)), 2 + digits, nil
		}
	case c >= '0' && c <= '7':
		if v, ok := number(1, 3, 8); ok && v <= 255 {
			return string([]byte{byte(v)}), 4, nil
		}
	}
	return bad()
}
