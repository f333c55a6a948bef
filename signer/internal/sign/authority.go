package sign

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// Authority is who may sign a role: Threshold of Keys must.
type Authority struct {
	Keys      []crypto.PublicKey
	Threshold int
}

// AuthorityOf lets any one of these keys sign.
func AuthorityOf(signers []crypto.Signer) Authority {
	a := Authority{Threshold: 1}
	for _, s := range signers {
		a.Keys = append(a.Keys, s.Public())
	}
	return a
}

// tufKeys gives the keys in TUF's form, by id, and the ids sorted.
func (a Authority) tufKeys(role string) (map[string]*metadata.Key, []string, error) {
	byID := map[string]*metadata.Key{}
	var ids []string
	for _, public := range a.Keys {
		id, err := keys.ID(public)
		if err != nil {
			return nil, nil, fmt.Errorf("role %s: %w", role, err)
		}
		if byID[id] != nil {
			return nil, nil, fmt.Errorf("role %s: key %s is given twice", role, id)
		}
		key, err := metadata.KeyFromPublicKey(public)
		if err != nil {
			return nil, nil, fmt.Errorf("role %s: %w", role, err)
		}
		byID[id], ids = key, append(ids, id)
	}
	if a.Threshold < 1 || a.Threshold > len(ids) {
		return nil, nil, fmt.Errorf("role %s: the threshold is %d with %d keys; it must be between 1 and the number of keys", role, a.Threshold, len(ids))
	}
	slices.Sort(ids)
	return byID, ids, nil
}

// The defaults of v1.Expiries.
const (
	day              = 24 * time.Hour
	defaultOffline   = 365 * day
	defaultTeam      = 90 * day
	defaultSnapshot  = 90 * day
	defaultTimestamp = 3 * day
)

func orDefault(d v1.Duration, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return time.Duration(d)
}

// pen signs metadata at one moment.
type pen struct {
	signers  keys.Signers
	now      time.Time
	expiries v1.Expiries
}

// newPen rounds to whole seconds, UTC: TUF's times have no more, and go-tuf would not
// reproduce what it signed.
func newPen(signers keys.Signers, now time.Time, e v1.Expiries) pen {
	return pen{signers: signers, now: now.UTC().Truncate(time.Second), expiries: e}
}

// life is how long freshly signed metadata of a role is good for.
func (p pen) life(role string) time.Duration {
	switch role {
	case metadata.ROOT:
		return orDefault(p.expiries.Root, defaultOffline)
	case metadata.TARGETS:
		return orDefault(p.expiries.Targets, defaultOffline)
	case metadata.SNAPSHOT:
		return orDefault(p.expiries.Snapshot, defaultSnapshot)
	case metadata.TIMESTAMP:
		return orDefault(p.expiries.Timestamp, defaultTimestamp)
	default:
		return orDefault(p.expiries.Team, defaultTeam)
	}
}

func (p pen) expiry(role string) time.Time {
	return p.now.Add(p.life(role)).Truncate(time.Second)
}

// has tells whether enough of a role's keys are at hand.
func (p pen) has(role string, ids []string, threshold int) bool {
	chosen, err := p.choose(role, ids, threshold)
	return err == nil && len(chosen) >= threshold
}

// choose picks the signers at hand that a role accepts, by key id.
func (p pen) choose(role string, ids []string, threshold int) ([]crypto.Signer, error) {
	byID := map[string]crypto.Signer{}
	for _, s := range p.signers[role] {
		id, err := keys.ID(s.Public())
		if err != nil {
			return nil, fmt.Errorf("cannot sign %s: %w", role, err)
		}
		if slices.Contains(ids, id) {
			byID[id] = s
		}
	}
	if len(byID) < threshold {
		return nil, fmt.Errorf("cannot sign %s: it needs %d of the keys %s, and %d of %d keys at hand are among them",
			role, threshold, strings.Join(ids, ", "), len(byID), len(p.signers[role]))
	}
	var out []crypto.Signer
	for _, id := range slices.Sorted(slices.Values(ids)) {
		if s := byID[id]; s != nil {
			out = append(out, s)
		}
	}
	return out, nil
}

// encode signs metadata and gives the file's bytes: indented, so that diffs can be read.
// role names the keys to take; ids and threshold what the delegator asks for.
func encode[T metadata.Roles](p pen, role string, m *metadata.Metadata[T], ids []string, threshold int) ([]byte, error) {
	chosen, err := p.choose(role, ids, threshold)
	if err != nil {
		return nil, err
	}
	m.ClearSignatures()
	for _, s := range chosen {
		if _, err := m.Sign(tufSigner{s}); err != nil {
			return nil, fmt.Errorf("cannot sign %s: %w", role, err)
		}
	}
	data, err := m.ToBytes(true)
	if err != nil {
		return nil, fmt.Errorf("cannot encode %s: %w", role, err)
	}
	return append(bytes.ReplaceAll(data, []byte("\t"), []byte(" ")), '\n'), nil
}

// tufSigner lets go-tuf sign with a crypto.Signer.
type tufSigner struct{ crypto.Signer }

var _ signature.Signer = tufSigner{}

// PublicKey implements signature.Signer.
func (s tufSigner) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.Public(), nil
}

// SignMessage implements signature.Signer: plain Ed25519, no hash before it.
func (s tufSigner) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	data, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	sig, err := s.Sign(rand.Reader, data, crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	if len(sig) == 0 {
		return nil, errors.New("the key gave an empty signature")
	}
	return sig, nil
}
