package source

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxSecret and maxBundle cap credential files and CA files.
const (
	maxSecret = 64 << 10
	maxBundle = 4 << 20
)

// defaultUser is for servers that look at the token alone.
const defaultUser = "git"

// authorization returns the value of the HTTP header, "" where there are no
// credentials.
func (s *Source) authorization() (string, error) {
	user, password := s.remote.user, s.remote.password
	if s.config.TokenFile != "" {
		token, err := readSecret(s.config.TokenFile)
		if err != nil {
			return "", err
		}
		user, password = s.config.Username, string(bytes.TrimSpace(token))
		if password == "" {
			return "", fmt.Errorf("%w: %s is empty", errConfig, s.config.TokenFile)
		}
		if user == "" {
			user = defaultUser
		}
	}
	if user == "" && password == "" {
		return "", nil
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)), nil
}

// readSecret reads a file that not everybody may read.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: cannot read credentials: %w", errConfig, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: cannot read credentials: %w", errConfig, err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%w: %s can be read by everybody (mode %04o): chmod o= it, and replace the credentials in it", errConfig, path, info.Mode().Perm())
	}
	return readCapped(f, path, maxSecret)
}

func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	defer func() { _ = f.Close() }()
	return readCapped(f, path, limit)
}

func readCapped(r io.Reader, path string, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errConfig, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%w: %s has more than %d bytes", errConfig, path, limit)
	}
	return data, nil
}

// fileMark tells whether a file is still the one that was read.
type fileMark struct {
	modified time.Time
	size     int64
}

func markOf(path string) (fileMark, error) {
	if path == "" {
		return fileMark{}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}, fmt.Errorf("%w: source.caFile: %w", errConfig, err)
	}
	return fileMark{info.ModTime(), info.Size()}, nil
}

// certPool adds PEM certificates to the system's; nil means the system's alone.
func certPool(extra []byte) (*x509.CertPool, error) {
	if len(extra) == 0 {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(extra) {
		return nil, errors.Join(errConfig, errors.New("source.caFile holds no PEM certificate"))
	}
	return pool, nil
}
