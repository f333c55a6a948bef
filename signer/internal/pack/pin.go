package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gpuaas/node-agent/internal/durable"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxPinFile bounds packages/<name>.yaml.
const maxPinFile = 1 << 20

// Pin writes the pushed package's reference and digest into file, which is
// packages/<name>.yaml of a fleet repo, and says whether that changed it. A new
// file is made; of an existing one everything else stays as it is, comments and
// layout included.
func Pin(file string, p *Pushed) (changed bool, err error) {
	pin := v1.PackagePin{
		TypeMeta:  v1.TypeMeta{APIVersion: v1.APIVersion, Kind: v1.KindPackage},
		Name:      p.Info.Name,
		Ref:       p.Repository,
		Digest:    p.Digest,
		Version:   p.Info.Version,
		Platforms: p.Info.PlatformNames(),
	}
	if err := CheckPin(file, pin.Name); err != nil {
		return false, err
	}
	old, err := readLimited(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot pin: %w", err)
	}
	var next []byte
	if errors.Is(err, fs.ErrNotExist) {
		next, err = encodeYAML(pin)
	} else {
		next, err = editPin(file, old, pin)
	}
	if err != nil {
		return false, fmt.Errorf("cannot pin in %s: %w", file, err)
	}
	if bytes.Equal(old, next) {
		return false, nil
	}
	return true, durable.WriteFile(file, next, durable.Options{Mode: 0o644})
}

// CheckPin tells whether file can be that of a package in a fleet repo.
func CheckPin(file, name string) error {
	if want := name + ".yaml"; filepath.Base(file) != want {
		return fmt.Errorf("cannot pin in %s: the file of package %q must be named %s", file, name, want)
	}
	if _, err := os.Stat(filepath.Dir(file)); err != nil {
		return fmt.Errorf("cannot pin in %s: %w", file, err)
	}
	return nil
}

// editPin puts the pin's fields into an existing document. Scalars on one line are
// replaced in the text itself; what can't be done so is done on the tree,
// which keeps comments and normalises indentation.
func editPin(file string, data []byte, pin v1.PackagePin) ([]byte, error) {
	if _, err := v1.DecodePackage(file, data); err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, err
	}
	m := doc.Content[0]
	if n := lookup(m, "name"); n == nil || n.Value != pin.Name {
		return nil, fmt.Errorf("it is for package %q, and this one is %q", n.Value, pin.Name)
	}
	fields := []struct{ key, value string }{{"ref", pin.Ref}, {"digest", pin.Digest}, {"version", pin.Version}}
	lines := bytes.SplitAfter(data, []byte("\n"))
	rewrite := false
	for _, f := range fields {
		n := lookup(m, f.key)
		switch {
		case n == nil:
			appendField(m, f.key, stringNode(f.value))
			rewrite = true
		case n.Value == f.value:
		default:
			rewrite = !replaceScalar(lines, n, f.value) || rewrite
			n.SetString(f.value)
		}
	}
	if setPlatforms(m, pin.Platforms) {
		rewrite = true
	}
	if rewrite {
		return encodeYAML(&doc)
	}
	return bytes.Join(lines, nil), nil
}

// replaceScalar exchanges the text of n in its line, and reports whether it
// could. Only one-line scalars, plain or quoted without escapes, can be.
func replaceScalar(lines [][]byte, n *yaml.Node, value string) bool {
	line := lines[n.Line-1]
	raw := n.Value
	switch n.Style {
	case yaml.SingleQuotedStyle:
		raw = "'" + raw + "'"
	case yaml.DoubleQuotedStyle:
		raw = `"` + raw + `"`
	}
	start := byteColumn(line, n.Column)
	if start < 0 || !bytes.HasPrefix(line[start:], []byte(raw)) {
		return false
	}
	quoted, err := encodeYAML(stringNode(value))
	if err != nil {
		return false
	}
	text := strings.TrimSuffix(string(quoted), "\n")
	if strings.Contains(text, "\n") {
		return false
	}
	lines[n.Line-1] = slices.Concat(line[:start], []byte(text), line[start+len(raw):])
	return true
}

// byteColumn turns yaml's column, which counts characters from 1, into an offset.
func byteColumn(line []byte, column int) int {
	at := 1
	for i := range string(line) {
		if at == column {
			return i
		}
		at++
	}
	return -1
}

// setPlatforms makes the list be want, and reports whether it was another.
func setPlatforms(m *yaml.Node, want []string) bool {
	n := lookup(m, "platforms")
	var have []string
	if n != nil {
		for _, e := range n.Content {
			have = append(have, e.Value)
		}
	}
	slices.Sort(have)
	if slices.Equal(have, want) {
		return false
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Style: yaml.FlowStyle}
	for _, p := range want {
		list.Content = append(list.Content, stringNode(p))
	}
	switch {
	case n == nil:
		appendField(m, "platforms", list)
	case len(want) == 0:
		i := slices.Index(m.Content, n)
		m.Content = slices.Delete(m.Content, i-1, i+1)
	default:
		n.Content = list.Content
	}
	return true
}

func readLimited(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxPinFile+1))
	if err := closeAfter(f, err); err != nil {
		return nil, err
	}
	if len(data) > maxPinFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", file, maxPinFile)
	}
	return data, nil
}

func lookup(m *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return m.Content[i+1]
		}
	}
	return nil
}

func appendField(m *yaml.Node, key string, value *yaml.Node) {
	m.Content = append(m.Content, stringNode(key), value)
}

func stringNode(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func encodeYAML(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}
