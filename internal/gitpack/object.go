// Package gitpack reads what a git server sends and keeps of it what is asked
// for: a pack from a stranger goes in, single objects come out.
//
// It differs from a git library in what it doesn't do: it keeps no repository,
// holds no more than an index of the pack in memory, and refuses an object
// before inflating it when its declared size is over the limit. A pack may be
// thin, and its deltas may lean on objects that nobody here has: only the
// objects that are asked for must be whole.
//
// Format: gitformat-pack(5). Object ids are SHA-1, which here only addresses
// objects within one conversation; what the agent believes is decided later by
// signatures over SHA-256.
package gitpack

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// ErrLimit is the cause of every refusal for size.
var ErrLimit = errors.New("over the limit")

// ID is an object's name.
type ID [sha1.Size]byte

// ParseID reads 40 hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return id, fmt.Errorf("%q is not an object id of 40 hex digits", s)
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, fmt.Errorf("%q is not an object id of 40 hex digits", s)
	}
	return id, nil
}

// String returns 40 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Type is an object's type, with the numbers of the pack format.
type Type uint8

// The types. Deltas become one of the first four when they are resolved.
const (
	Commit   Type = 1
	Tree     Type = 2
	Blob     Type = 3
	Tag      Type = 4
	ofsDelta Type = 6
	refDelta Type = 7
)

func (t Type) String() string {
	switch t {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	case Tag:
		return "tag"
	}
	return "type " + strconv.Itoa(int(t))
}

// Object is one whole object.
type Object struct {
	Type Type
	Data []byte
}

// ID computes the object's name.
func (o Object) ID() ID {
	h := sha1.New()
	h.Write(header(o.Type, uint64(len(o.Data))))
	h.Write(o.Data)
	return ID(h.Sum(nil))
}

func header(t Type, size uint64) []byte {
	return fmt.Appendf(nil, "%s %d\x00", t, size)
}

// CommitTree returns the tree that a commit records.
func CommitTree(o Object) (ID, error) {
	line, _, _ := bytes.Cut(o.Data, []byte{'\n'})
	name, ok := bytes.CutPrefix(line, []byte("tree "))
	if o.Type != Commit || !ok {
		return ID{}, errors.New("not a commit")
	}
	return ParseID(string(name))
}

// Entry is one line of a tree.
type Entry struct {
	Mode string // octal, as git writes it
	Name string
	ID   ID
}

// IsDir reports whether the entry is a tree.
func (e Entry) IsDir() bool { return e.Mode == "40000" }

// IsFile reports whether the entry is a plain file: no symlink, no submodule.
func (e Entry) IsFile() bool { return len(e.Mode) == 6 && e.Mode[:3] == "100" }

// Entries calls yield for each line of a tree, until it returns false.
func Entries(o Object, yield func(Entry) bool) error {
	if o.Type != Tree {
		return fmt.Errorf("a %s where a tree should be", o.Type)
	}
	for data := o.Data; len(data) > 0; {
		mode, rest, ok1 := bytes.Cut(data, []byte{' '})
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok1 || !ok2 || len(rest) < len(ID{}) {
			return errors.New("a tree that can't be read")
		}
		if !yield(Entry{string(mode), string(name), ID(rest[:len(ID{})])}) {
			return nil
		}
		data = rest[len(ID{}):]
	}
	return nil
}
