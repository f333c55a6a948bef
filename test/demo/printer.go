package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// printer shows the story: chapters, the commands as one would type them, and
// what was observed, with the time since the start and of each wait.
type printer struct {
	w      io.Writer
	start  time.Time
	colour bool
	checks int
}

// newPrinter returns a printer to f, which calls gone when nobody reads f any more.
func newPrinter(f *os.File, gone func()) *printer {
	return &printer{w: watched{f, gone}, start: time.Now(), colour: term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == ""}
}

// watched is a writer that tells when writing fails.
type watched struct {
	io.Writer
	gone func()
}

// Write implements io.Writer.
func (w watched) Write(data []byte) (int, error) {
	n, err := w.Writer.Write(data)
	if err != nil {
		w.gone()
	}
	return n, err
}

func (p *printer) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p *printer) chapter(n int, title string) {
	fmt.Fprintf(p.w, "\n%s\n", p.paint("1", fmt.Sprintf("[%5.1fs] %d. %s", time.Since(p.start).Seconds(), n, title)))
}

func (p *printer) command(line string) {
	fmt.Fprintf(p.w, "  %s\n", p.paint("36", "$ "+line))
}

func (p *printer) output(text string) {
	text = strings.TrimRight(text, "\n")
	if text == "" {
		return
	}
	const most = 40
	lines := strings.Split(text, "\n")
	if len(lines) > most {
		lines = append(lines[:most], fmt.Sprintf("... %d more lines", len(lines)-most))
	}
	for _, l := range lines {
		fmt.Fprintf(p.w, "    %s\n", l)
	}
}

func (p *printer) say(format string, args ...any) {
	fmt.Fprintf(p.w, "  # "+format+"\n", args...)
}

// saw is a check from outside that held.
func (p *printer) saw(took time.Duration, format string, args ...any) {
	p.checks++
	after := ""
	if took > 0 {
		after = fmt.Sprintf(" (after %d ms)", took.Milliseconds())
	}
	fmt.Fprintf(p.w, "  %s %s%s\n", p.paint("32", "seen:"), fmt.Sprintf(format, args...), after)
}

func (p *printer) finished() {
	fmt.Fprintf(p.w, "\n%s\n", p.paint("1;32", fmt.Sprintf("[%5.1fs] every step was seen to be true from outside: %d checks", time.Since(p.start).Seconds(), p.checks)))
}
