package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Unit is what a Quantity counts.
type Unit string

// The units.
const (
	Bytes   Unit = "bytes"
	Seconds Unit = "seconds"
	Number  Unit = ""
)

// Quantity is one measured value; the zero Quantity is none.
type Quantity struct {
	Amount float64 `json:"amount"`
	Unit   Unit    `json:"unit,omitempty"`
	Set    bool    `json:"-"`
}

// Size is a number of bytes.
func Size(n int64) Quantity { return Quantity{float64(n), Bytes, true} }

// Time is a duration.
func Time(d time.Duration) Quantity { return Quantity{d.Seconds(), Seconds, true} }

// Count is a plain number.
func Count(n float64) Quantity { return Quantity{n, Number, true} }

// String shows three digits and a unit that fits.
func (q Quantity) String() string {
	if !q.Set {
		return "-"
	}
	steps := []struct {
		from float64
		name string
	}{{1, ""}}
	switch q.Unit {
	case Bytes:
		steps = []struct {
			from float64
			name string
		}{{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}, {1, " B"}}
	case Seconds:
		steps = []struct {
			from float64
			name string
		}{{1, " s"}, {1e-3, " ms"}, {1e-6, " µs"}}
	}
	for _, s := range steps {
		if q.Amount >= s.from || s == steps[len(steps)-1] {
			return fmt.Sprintf("%.3g%s", q.Amount/s.from, s.name)
		}
	}
	return ""
}

// Row is one figure beside what it is measured against.
type Row struct {
	What string   `json:"what"`
	Ours Quantity `json:"ours"`
	// Peer is the same figure of another program, which PeerName names.
	Peer     Quantity `json:"peer,omitzero"`
	PeerName string   `json:"peerName,omitempty"`
	// Target is what Ours must stay below.
	Target Quantity `json:"target,omitzero"`
}

// Met reports whether the target is reached; a row without one is.
func (r Row) Met() bool { return !r.Target.Set || r.Ours.Amount < r.Target.Amount }

// ratio is ours in relation to the peer's.
func (r Row) ratio() string {
	if !r.Peer.Set || r.Peer.Amount == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3g", r.Ours.Amount/r.Peer.Amount)
}

func (r Row) ok() string {
	switch {
	case !r.Target.Set:
		return ""
	case r.Met():
		return "yes"
	}
	return "NO"
}

// Table is the figures of a run, in the order in which they were taken.
type Table struct{ Rows []Row }

// Add takes a row.
func (t *Table) Add(r Row) { t.Rows = append(t.Rows, r) }

// Missed returns how many targets were not reached.
func (t *Table) Missed() int {
	n := 0
	for _, r := range t.Rows {
		if !r.Met() {
			n++
		}
	}
	return n
}

// Print writes the table for people.
func (t *Table) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if _, err := fmt.Fprintln(tw, "what\tours\tpeer\tratio\ttarget\tok"); err != nil {
		return err
	}
	for _, r := range t.Rows {
		peer, target := r.Peer.String(), r.Target.String()
		if r.PeerName != "" {
			peer += " (" + r.PeerName + ")"
		}
		if r.Target.Set {
			target = "< " + target
		}
		if _, err := fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.What, r.Ours, peer, r.ratio(), target, r.ok()); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// JSON writes the table for programs.
func (t *Table) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(t.Rows)
}
