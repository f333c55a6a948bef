package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxConfig bounds the configuration file.
const maxConfig = 1 << 20

// config is the configuration file.
type config struct {
	// Node is written into the report.
	Node string `json:"node"`
	// Folders are measured; those that aren't there are left out.
	Folders       []string `json:"folders"`
	WarnAtPercent int      `json:"warnAtPercent"`
	// Largest is how many files a folder's report names.
	Largest int `json:"largest"`
}

func readConfig(path string) (config, error) {
	var c config
	f, err := os.Open(path)
	if err != nil {
		return c, fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return c, fmt.Errorf("cannot read the configuration: %w", err)
	}
	if len(data) > maxConfig {
		return c, fmt.Errorf("cannot read the configuration %s: it is larger than %d bytes", path, maxConfig)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return c, fmt.Errorf("cannot read the configuration %s: %w", path, err)
	}
	if c.WarnAtPercent < 1 || c.WarnAtPercent > 100 || c.Largest < 0 || len(c.Folders) == 0 {
		return c, fmt.Errorf("cannot use the configuration %s: it needs folders, warnAtPercent from 1 to 100, largest from 0", path)
	}
	return c, nil
}

// report is what is written.
type report struct {
	Node    string    `json:"node"`
	Time    time.Time `json:"time"`
	Folders []folder  `json:"folders"`
}

type folder struct {
	Path string `json:"path"`
	// UsedPercent is how full the folder's file system is.
	UsedPercent int    `json:"usedPercent"`
	Files       int    `json:"files"`
	Bytes       int64  `json:"bytes"`
	Largest     []file `json:"largest,omitempty"`
	// Unreadable counts what this user may not look at.
	Unreadable int `json:"unreadable,omitempty"`
}

type file struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
}

// measure looks at every folder of the configuration.
func measure(c config, now time.Time, used func(string) (int, error)) report {
	r := report{Node: c.Node, Time: now.UTC().Truncate(time.Second), Folders: []folder{}}
	for _, path := range c.Folders {
		percent, err := used(path)
		if err != nil {
			continue // not there
		}
		f := walk(path, c.Largest)
		f.UsedPercent = percent
		r.Folders = append(r.Folders, f)
	}
	return r
}

func walk(path string, largest int) folder {
	f := folder{Path: path}
	// The function never returns an error: what can't be read is counted.
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			f.Unreadable++
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil // gone meanwhile
		}
		f.Files++
		f.Bytes += info.Size()
		f.keep(file{Path: p, Bytes: info.Size()}, largest)
		return nil
	})
	return f
}

// keep holds the largest files, largest first.
func (f *folder) keep(candidate file, most int) {
	order := func(a, b file) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Path, b.Path)) }
	i, _ := slices.BinarySearchFunc(f.Largest, candidate, order)
	if i >= most {
		return
	}
	f.Largest = slices.Insert(f.Largest, i, candidate)
	f.Largest = f.Largest[:min(len(f.Largest), most)]
}
