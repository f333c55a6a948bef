package source

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/source/gitwire"
	"github.com/gpuaas/node-agent/internal/gitpack"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const component = "source"

// errNoBranch is a repository without the branch.
var errNoBranch = errors.New("the branch doesn't exist")

// errNoFiles is a branch without any wanted file.
var errNoFiles = errors.New("the branch has no signed metadata")

// errLimit is the cause of our own refusals for size.
var errLimit = errors.New("over the limit")

// errConfig is the cause of what only this node's configuration can mend.
var errConfig = errors.New("bad source configuration")

// errWorkspace is the cause of failures of this machine.
var errWorkspace = errors.New("cannot use the source's folder")

func configError(element string, err error) error {
	return &host.Error{Component: component, Element: element, Reason: v1.ReasonConfig, Retry: true, Err: err}
}

// asHostError finds the reason in err's chain.
func asHostError(r remote, err error) *host.Error {
	e := &host.Error{Component: component, Element: r.String(), Reason: v1.ReasonSourceUnreachable, Retry: true, Err: err}
	switch {
	case errors.Is(err, errNoBranch), errors.Is(err, errNoFiles):
		e.Reason = v1.ReasonSourceEmpty
	case errors.Is(err, gitwire.ErrLimit), errors.Is(err, gitpack.ErrLimit), errors.Is(err, errLimit),
		errors.Is(err, unix.EFBIG):
		e.Reason = v1.ReasonSourceLimits
	case errors.Is(err, errConfig):
		e.Reason = v1.ReasonConfig
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		e.Reason = v1.ReasonNoSpace
	case errors.Is(err, errWorkspace):
		e.Reason = v1.ReasonNotWritable
	}
	return e
}

// explain adds what to check.
func (s *Source) explain(err error) error { return explain(err, s.config.Branch) }

func explain(err error, branch string) error {
	var status *gitwire.StatusError
	var server *gitwire.ServerError
	var untrusted x509.UnknownAuthorityError
	hint := ""
	switch {
	case errors.Is(err, errNoBranch):
		return fmt.Errorf("branch %q: %w; check source.branch, and that the signer has published", branch, err)
	case errors.Is(err, errNoFiles):
		return fmt.Errorf("branch %q: %w; check that source.branch names the signed branch", branch, err)
	case errors.As(err, &status):
		switch status.Code {
		case http.StatusUnauthorized, http.StatusForbidden:
			hint = "; check source.username and source.tokenFile"
		case http.StatusNotFound:
			hint = "; check source.url, and whether the repository needs credentials"
		}
	case errors.As(err, &untrusted):
		hint = "; if the server's certificate is from a CA of your own, set source.caFile"
	case errors.Is(err, errConfig), errors.Is(err, errWorkspace), errors.Is(err, errLimit), errors.Is(err, gitpack.ErrLimit), errors.Is(err, gitwire.ErrLimit):
	case errors.As(err, &server), errors.Is(err, gitwire.ErrProtocol):
		hint = "; check source.url"
	}
	return fmt.Errorf("cannot read the signed branch: %w%s", err, hint)
}
