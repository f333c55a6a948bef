package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	for name, size := range map[string]int{"a": 10, "sub/b": 30, "sub/c": 20} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(state, "config.json")
	text := `{"node": "n", "folders": ["` + dir + `", "/does/not/exist"], "warnAtPercent": 1, "largest": 2}`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := run(config, state, time.Unix(0, 0), &log); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(state, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Folders) != 1 || r.Folders[0].Files != 3 || r.Folders[0].Bytes != 60 {
		t.Errorf("report is %s", data)
	}
	if l := r.Folders[0].Largest; len(l) != 2 || l[0].Bytes != 30 || l[1].Bytes != 20 {
		t.Errorf("largest are %+v", l)
	}
	if !strings.HasPrefix(log.String(), "<4>the file system of "+dir) {
		t.Errorf("warning is %q", log.String())
	}
}

func TestConfigErrors(t *testing.T) {
	for name, text := range map[string]string{
		"unknown field": `{"folder": []}`, "no folders": `{"warnAtPercent": 5}`, "percent": `{"folders": ["/"], "warnAtPercent": 200}`, "not JSON": `x`,
	} {
		p := filepath.Join(t.TempDir(), "c.json")
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readConfig(p); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
