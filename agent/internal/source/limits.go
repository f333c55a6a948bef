package source

import "github.com/gpuaas/node-agent/internal/gitpack"

// Limits bound what a Poll takes from a server.
type Limits struct {
	// File is the most bytes of one file, Files their number, Total their sum.
	File  int64 `json:"file"`
	Files int   `json:"files"`
	Total int64 `json:"total"`
	// Wire is the most bytes of all answers, Inflated of what they unpack to,
	// Objects their number. They matter for servers that send a whole tree.
	Wire     int64 `json:"wire"`
	Inflated int64 `json:"inflated"`
	Objects  int   `json:"objects"`
}

// DefaultLimits returns what holds where Config says nothing: far above the
// needs of 100,000 nodes.
func DefaultLimits() Limits {
	return Limits{
		File: 8 << 20, Files: 1024, Total: 16 << 20,
		Wire: 512 << 20, Inflated: 2 << 30, Objects: 2 << 20,
	}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	if l.File > 0 {
		d.File = l.File
	}
	if l.Files > 0 {
		d.Files = l.Files
	}
	if l.Total > 0 {
		d.Total = l.Total
	}
	if l.Wire > 0 {
		d.Wire = l.Wire
	}
	if l.Inflated > 0 {
		d.Inflated = l.Inflated
	}
	if l.Objects > 0 {
		d.Objects = l.Objects
	}
	return d
}

// pack bounds one pack. An object may be a file or a tree, and trees lead to
// files: the same limit serves both.
func (l Limits) pack() gitpack.Limits {
	return gitpack.Limits{Objects: l.Objects, Packed: l.Wire, Inflated: l.Inflated, Object: uint64(l.File)}
}
