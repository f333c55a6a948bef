package cli

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestOnlyCleanReadOnlyMappingsOfTheBinaryAreDropped(t *testing.T) {
	const smaps = `00400000-00500000 r-xp 00000000 08:01 1 /usr/bin/agent
Size:               1024 kB
Anonymous:             0 kB
VmFlags: rd ex
00500000-00600000 r--p 00100000 08:01 1 /usr/bin/agent
Anonymous:             4 kB
00600000-00700000 rw-p 00200000 08:01 1 /usr/bin/agent
Anonymous:             0 kB
00700000-00800000 r--p 00000000 08:01 2 /usr/lib/other
Anonymous:             0 kB
00800000-00900000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	got := cleanMappings(strings.NewReader(smaps), "/usr/bin/agent")
	if len(got) != 1 || got[0] != (mapping{0x400000, 0x500000}) {
		t.Errorf("%+v", got)
	}
}

// The process must go on as if nothing had happened.
func TestRestShrinksAndGoesOn(t *testing.T) {
	before := rssFile(t)
	rest()
	after := rssFile(t)
	if after >= before {
		t.Errorf("file-backed resident memory was %d kB and is %d kB", before, after)
	}
}

func rssFile(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb
		}
	}
	t.Fatal("no RssFile")
	return 0
}
