package report

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Audit is an append-only log of what the agent did to its host: JSON lines,
// each with the hash of the line before, so that a changed, removed or reordered
// record shows. It is not safe for concurrent use.
type Audit struct {
	path string
	last string
}

// Record is one line of the audit log.
type Record struct {
	Time time.Time `json:"time"`
	// Event is "verified", "step", "committed", "rolled-back", "held" or "refused".
	Event      string `json:"event"`
	Generation int64  `json:"generation,omitempty"`
	// Manifest is the digest of the manifest that was being applied.
	Manifest string `json:"manifest,omitempty"`
	Commit   string `json:"commit,omitempty"`
	// SignedBy are the key ids that the manifest's role accepts.
	SignedBy []string `json:"signedBy,omitempty"`
	Action   string   `json:"action,omitempty"`
	Resource string   `json:"resource,omitempty"`
	Task     string   `json:"task,omitempty"`
	Reason   string   `json:"reason,omitempty"`
	Before   string   `json:"before,omitempty"`
	After    string   `json:"after,omitempty"`
	// Result is "ok" or "failed".
	Result string `json:"result"`
	Error  string `json:"error,omitempty"`
	// Previous is the sha256 of the line before, without its newline; "" in the first.
	Previous string `json:"previous"`
}

// OpenAudit opens the log below dir. A last line that a power cut left
// incomplete is cut off: it describes a step that is observed anew anyway.
func OpenAudit(dir string) (*Audit, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the audit folder: %w", err)
	}
	a := &Audit{path: filepath.Join(dir, "audit.jsonl")}
	f, err := os.OpenFile(a.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the audit log: %w", err)
	}
	defer f.Close()
	var end int64
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			if len(line) == 0 {
				return a, nil
			}
			return a, f.Truncate(end)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the audit log: %w", err)
		}
		end += int64(len(line))
		a.last = HashLine(line[:len(line)-1])
	}
}

// Append adds a record and makes it durable.
func (a *Audit) Append(r Record) error {
	r.Time = r.Time.UTC()
	r.Previous = a.last
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot encode an audit record: %w", err)
	}
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the audit log: %w", err)
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		if _, err = f.Write(append(line, '\n')); err == nil {
			err = f.Sync()
		}
		if err != nil {
			// Half a line would spoil the next one, and the chain with it.
			err = errors.Join(err, f.Truncate(end))
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cannot write the audit log: %w", err)
	}
	a.last = HashLine(line)
	return nil
}

// HashLine is what the next record of the audit log calls Previous: the hex sha256
// of a line without its newline.
func HashLine(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
