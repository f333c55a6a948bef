package cli

import (
	"bufio"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// rest lets go of the memory that a pass needed and that waiting doesn't: the
// heap's free pages, and the pages of the binary itself that were touched. The
// kernel keeps the latter in its page cache and maps them again at the next
// use, a few microseconds each. Failing is harmless: the agent is only larger.
func rest() {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for _, m := range cleanMappings(f, exe) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	}
}

type mapping struct{ start, end uintptr }

// cleanMappings returns the mappings of a file that can't be written to and hold
// nothing but what is in the file: dropping others would lose something.
func cleanMappings(smaps io.Reader, file string) []mapping {
	var list []mapping
	var current *mapping
	for s := bufio.NewScanner(smaps); s.Scan(); {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) >= 6 && strings.Contains(fields[0], "-"):
			current = nil
			if fields[5] == file && !strings.Contains(fields[1], "w") {
				current = parseRange(fields[0])
			}
		case current != nil && len(fields) >= 2 && fields[0] == "Anonymous:" && fields[1] == "0":
			list = append(list, *current)
			current = nil
		}
	}
	return list
}

func parseRange(s string) *mapping {
	from, to, _ := strings.Cut(s, "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if err1 != nil || err2 != nil || end <= start {
		return nil
	}
	return &mapping{uintptr(start), uintptr(end)}
}
