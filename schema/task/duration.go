package task

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written like "90s", "6h" or "90d". It is never
// negative and at most MaxDuration. A day is 24 hours.
type Duration time.Duration

// MaxDuration bounds every Duration: 100 years of 365 days.
const MaxDuration = 36500 * day

const day = Duration(24 * time.Hour)

var (
	durationText = regexp.MustCompile(`^(?:([0-9]{1,9})d)?((?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))*)$`)
	errDuration  = errors.New(`allowed is a duration like "90s", "6h" or "90d", up to 36500d`)
)

// ParseDuration reads what people write: days, then what time.ParseDuration takes.
func ParseDuration(s string) (Duration, error) {
	match := durationText.FindStringSubmatch(s)
	if match == nil || s == "" {
		return 0, errDuration
	}
	var total Duration
	if match[1] != "" {
		days, err := strconv.Atoi(match[1])
		if err != nil || days > int(MaxDuration/day) {
			return 0, errDuration
		}
		total = Duration(days) * day
	}
	if match[2] != "" {
		rest, err := time.ParseDuration(match[2])
		if err != nil || rest < 0 || Duration(rest) > MaxDuration {
			return 0, errDuration
		}
		total += Duration(rest)
	}
	if total > MaxDuration {
		return 0, errDuration
	}
	return total, nil
}

// String returns the canonical form, the shortest that ParseDuration reads: "90d", "36h", "1m30s".
func (d Duration) String() string {
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText implements encoding.TextMarshaler, for YAML and JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
