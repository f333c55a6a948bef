package unitfile_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/guard/unitfile"
)

func TestParse(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"plain", "[A]\nk=v\n", "1 [A]; 2 A.k=v"},
		{"no final newline", "[A]\nk=v", "1 [A]; 2 A.k=v"},
		{"spaces", "  [A]\t\n \tk \t= v w \n", "1 [A]; 2 A.k=v w"},
		{"empty value", "[A]\nk=\nl =\n", "1 [A]; 2 A.k=; 3 A.l="},
		{"value with =", "[A]\nk=a=b\n", "1 [A]; 2 A.k=a=b"},
		{"comments", "# c\n; c\n[A]\n  # k=v\nk=v # not a comment\n", "3 [A]; 5 A.k=v # not a comment"},
		{"continuation", "[A]\nk=a\\\n  b\nl=c\n", "1 [A]; 2 A.k=a   b; 4 A.l=c"},
		{"continuation of a key", "[A]\nk\\\n=v\n", "1 [A]; 2 A.k=v"},
		{"comments in a continuation", "[A]\nk=a\\\n# c\\\n;d\nb\n", "1 [A]; 2 A.k=a b"},
		{"empty line ends a continuation", "[A]\nk=a\\\n\nl=b\n", "1 [A]; 2 A.k=a; 4 A.l=b"},
		{"escaped backslash at the end", "[A]\nk=a\\\\\nl=b\n", `1 [A]; 2 A.k=a\\; 3 A.l=b`},
		{"three backslashes at the end", "[A]\nk=a\\\\\\\nb\n", `1 [A]; 2 A.k=a\\ b`},
		{"space after the backslash", "[A]\nk=a\\ \nl=b\n", `1 [A]; 2 A.k=a\; 3 A.l=b`},
		{"continued section", "[A\\\n]\nk=v\n", "1 [A ]; 3 A .k=v"},
		{"comment with a backslash", "[A]\n# c \\\nk=v\n", "1 [A]; 3 A.k=v"},
		{"repeated", "[A]\nk=v\n[B]\nk=v\n[A]\nk=w\n", "1 [A]; 3 [B]; 5 [A]; 2 A.k=v; 4 B.k=v; 6 A.k=w"},
		{"empty", "", ""},
		{"BOM", "\ufeff[A]\n", "error line 1: the file begins with a byte order mark; remove it"},
		{"NUL", "[A]\nk=\x00\n", "error line 2: control character U+0000"},
		{"CR", "[A]\r\n", "error line 1: carriage return; use line feeds only"},
		{"escape character", "[A]\n\n\x1bk=v", "error line 3: control character U+001B"},
		{"not UTF-8", "[A]\nk=\xff\n", "error line 2: not UTF-8"},
		{"no section", "k=v\n", `error line 1: "k=v" is outside of any section`},
		{"bad header", "[A\n", `error line 1: "[A" is not a section header`},
		{"empty header", "[]\n", `error line 1: "[]" is not a section header`},
		{"no assignment", "[A]\nk\n", `error line 2: "k" is not an assignment; write Key=Value`},
		{"no key", "[A]\n =v\n", `error line 2: "=v" is not an assignment; write Key=Value`},
		{"backslash at the end of the file", "[A]\nk=v\\", "error line 2: the file ends in a line continuation"},
		{"large", strings.Repeat("#\n", 1<<20), "error line 1: the unit file has 2097152 bytes, at most 1048575 are read"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, err := unitfile.Parse([]byte(test.text))
			if got := describe(f, err); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Many short continuations take no more time than their size.
func TestManyContinuations(t *testing.T) {
	f, err := unitfile.Parse([]byte("[A]\nk=" + strings.Repeat("\\\n", 500_000)))
	if err != nil || len(f.Assignments) != 1 || f.Assignments[0].Value != "" {
		t.Errorf("%d assignments, %v", len(f.Assignments), err)
	}
}

func describe(f unitfile.File, err error) string {
	if err != nil {
		return "error " + err.Error()
	}
	var out []string
	for _, s := range f.Sections {
		out = append(out, fmt.Sprintf("%d [%s]", s.Line, s.Name))
	}
	for _, a := range f.Assignments {
		out = append(out, fmt.Sprintf("%d %s.%s=%s", a.Line, a.Section, a.Key, a.Value))
	}
	return strings.Join(out, "; ")
}

func TestParseExec(t *testing.T) {
	tests := []struct{ value, want string }{
		{"", ""},
		{"/a", `"" "/a" []`},
		{"/a b  c\t", `"" "/a" ["b" "c"]`},
		{"-@:+!/a b", `"-@:+!" "/a" ["b"]`},
		{`"-/a b" c`, `"-" "/a b" ["c"]`},
		{`/a 'b "c"' "d 'e'" f"g h"i`, `"" "/a" ["b \"c\"" "d 'e'" "fg hi"]`},
		{`/a "" ''`, `"" "/a" ["" ""]`},
		{`/a \x41\101\u0041\U00000041\s\t\\\"\'`, `"" "/a" ["AAAA \t\\\"'"]`},
		{`/a "\x41" '\x41'`, `"" "/a" ["A" "A"]`},
		{"/a ; /b", `"" "/a" [] | "" "/b" []`},
		{"/a;/b", `"" "/a;/b" []`},
		{"/a b; c", `"" "/a" ["b;" "c"]`},
		{"/a ;b", `"" "/a" [";b"]`},
		{`/a ";" b`, `"" "/a" [";" "b"]`},
		{`/a \; b`, `"" "/a" [";" "b"]`},
		{`; ";" /a`, `"" "/a" []`},
		{"/a ;", `"" "/a" []`},
		{"/a ${X} $Y %n", `"" "/a" ["${X}" "$Y" "%n"]`},
		{"-", "error a command without an executable"},
		{`""`, "error a command without an executable"},
		{`/a "b`, `error quote " is not closed`},
		{`/a \q`, `error unknown escape "\\q"`},
		{`/a \x00`, `error unknown escape "\\x00"`},
		{`/a \x4`, `error unknown escape "\\x4"`},
		{`/a \400`, `error unknown escape "\\400"`},
		{`/a \ud800`, `error unknown escape "\\ud800"`},
		{`/a \`, `error unknown escape "\\"`},
		{`/a \;b`, `error unknown escape "\\;b"`},
	}
	for _, test := range tests {
		commands, err := unitfile.ParseExec(test.value)
		var got []string
		for _, c := range commands {
			got = append(got, fmt.Sprintf("%q %q %q", c.Prefixes, c.Path, c.Args))
		}
		text := strings.Join(got, " | ")
		if err != nil {
			text = "error " + err.Error()
		}
		if text != test.want {
			t.Errorf("%s\ngot  %s\nwant %s", test.value, text, test.want)
		}
	}
}

// What was parsed and is written plainly parses to the same.
func FuzzParse(f *testing.F) {
	f.Add("[A]\nk=a\\\n# c\n b\n[B]\n=\n")
	f.Add("\ufeff[A]\r\nk=\x00")
	f.Add("[A]\nk=v\\\\\\")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := unitfile.Parse([]byte(text))
		if err != nil {
			return
		}
		var b strings.Builder
		for _, a := range file.Assignments {
			fmt.Fprintf(&b, "[%s]\n%s=%s\n", a.Section, a.Key, a.Value)
		}
		again, err := unitfile.Parse([]byte(b.String()))
		if err != nil {
			if strings.Contains(err.Error(), "at most") || strings.Contains(b.String(), "\\\n") {
				return // a value that ends in a backslash can't be written plainly
			}
			t.Fatalf("%q: %v", b.String(), err)
		}
		same := slices.EqualFunc(file.Assignments, again.Assignments, func(a, b unitfile.Assignment) bool {
			return a.Section == b.Section && a.Key == b.Key && a.Value == b.Value
		})
		if !same && !strings.Contains(b.String(), "\\\n") {
			t.Fatalf("%q: %v, then %v", text, file.Assignments, again.Assignments)
		}
	})
}

func FuzzParseExec(f *testing.F) {
	f.Add(`-@/a "b\x41" ; /c \; 'd`)
	f.Add("; ; \\")
	f.Add("\\u00e4 \"")
	f.Fuzz(func(t *testing.T, value string) {
		commands, err := unitfile.ParseExec(value)
		for _, c := range commands {
			if err != nil || c.Path == "" || strings.IndexByte("@-:+!|", c.Path[0]) >= 0 {
				t.Fatalf("%q: %+v, %v", value, c, err)
			}
		}
		if _, err := unitfile.Words(value); err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}
