package gitpack

import (
	"encoding/binary"
	"errors"
	"fmt"
)

var errDelta = errors.New("a delta that can't be applied")

// patch applies a delta. The result has the size that the delta declares, and
// is refused before anything is allocated when that is over limit.
func patch(base, delta []byte, limit uint64) ([]byte, error) {
	baseSize, n := binary.Uvarint(delta)
	if n <= 0 || baseSize != uint64(len(base)) {
		return nil, errDelta
	}
	delta = delta[n:]
	size, n := binary.Uvarint(delta)
	if n <= 0 {
		return nil, errDelta
	}
	if size > limit {
		return nil, fmt.Errorf("an object of %d bytes: %w of %d", size, ErrLimit, limit)
	}
	delta = delta[n:]
	out := make([]byte, 0, size)
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		var piece []byte
		switch {
		case op&0x80 != 0:
			var offset, length uint64
			var ok bool
			if offset, length, delta, ok = copyOp(op, delta); !ok || offset+length > uint64(len(base)) {
				return nil, errDelta
			}
			piece = base[offset : offset+length]
		case op == 0 || int(op) > len(delta):
			return nil, errDelta
		default:
			piece, delta = delta[:op], delta[op:]
		}
		if uint64(len(out)+len(piece)) > size {
			return nil, errDelta
		}
		out = append(out, piece...)
	}
	if uint64(len(out)) != size {
		return nil, errDelta
	}
	return out, nil
}

// copyOp decodes the operands of "copy from base".
func copyOp(op byte, delta []byte) (offset, length uint64, rest []byte, ok bool) {
	for bit := range 7 {
		if op&(1<<bit) == 0 {
			continue
		}
		if len(delta) == 0 {
			return 0, 0, nil, false
		}
		if bit < 4 {
			offset |= uint64(delta[0]) << (8 * bit)
		} else {
			length |= uint64(delta[0]) << (8 * (bit - 4))
		}
		delta = delta[1:]
	}
	if length == 0 {
		length = 0x10000
	}
	return offset, length, delta, true
}
