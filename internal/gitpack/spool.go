package gitpack

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// spoolMemory is how much of a pack stays in memory: all of what a usual
// change brings.
const spoolMemory = 1 << 20

// spool keeps a pack for random access: in memory as long as it is small, then
// in a file.
type spool struct {
	open   OpenFile
	memory []byte
	file   *os.File
	size   int64
}

func (s *spool) Write(p []byte) (int, error) {
	if s.file == nil && len(s.memory)+len(p) > spoolMemory {
		if err := s.toFile(); err != nil {
			return 0, err
		}
	}
	s.size += int64(len(p))
	if s.file == nil {
		s.memory = append(s.memory, p...)
		return len(p), nil
	}
	return s.file.Write(p)
}

func (s *spool) toFile() error {
	f, err := s.open()
	if err != nil {
		return fmt.Errorf("cannot keep an incoming pack: %w", err)
	}
	if _, err := f.Write(s.memory); err != nil {
		return errors.Join(fmt.Errorf("cannot keep an incoming pack: %w", err), f.Close())
	}
	s.file, s.memory = f, nil
	return nil
}

// NamelessFile makes an empty file in dir that has no name, and so is gone once
// it is closed.
func NamelessFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "incoming-*.pack")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// at returns a reader that begins at an offset.
func (s *spool) at(offset int64) io.Reader {
	return io.NewSectionReader(s, offset, s.size-offset)
}

// ReadAt implements io.ReaderAt.
func (s *spool) ReadAt(p []byte, offset int64) (int, error) {
	if s.file != nil {
		return s.file.ReadAt(p, offset)
	}
	if offset >= int64(len(s.memory)) {
		return 0, io.EOF
	}
	n := copy(p, s.memory[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close gives up what was kept.
func (s *spool) Close() error {
	s.memory = nil
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
