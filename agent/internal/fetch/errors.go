package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxErrorText bounds what a registry may add to a message, in bytes.
const maxErrorText = 600

// statusError is an answer with another status than the wanted one.
type statusError struct {
	err   error // with what the registry says about it
	code  int
	after time.Duration // Retry-After, 0 if there is none
}

func (e *statusError) Error() string { return e.err.Error() }

// checkStatus turns an unwanted status into a *statusError.
func checkStatus(resp *http.Response, want ...int) error {
	err := transport.CheckError(resp, want...)
	if err == nil {
		return nil
	}
	e := &statusError{err: err, code: resp.StatusCode}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.after = time.Duration(seconds) * time.Second
	}
	return e
}

// statusOf returns the HTTP status that err is about, or 0.
func statusOf(err error) int {
	var own *statusError
	if errors.As(err, &own) {
		return own.code
	}
	var theirs *transport.Error
	if errors.As(err, &theirs) {
		return theirs.StatusCode
	}
	return 0
}

// temporary reports whether the same request may succeed in a moment: the
// network failed, or the registry is overloaded or restarting.
func temporary(err error) bool {
	var judged *host.Error
	if errors.As(err, &judged) {
		return false
	}
	if code := statusOf(err); code != 0 {
		return code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500
	}
	var (
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
	)
	switch {
	case errors.Is(err, errPlainHTTP), errors.Is(err, errTooLarge), errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &cert), errors.As(err, &unknown):
		return false
	}
	return true
}

// explain turns what a request ended with into what status shows.
func explain(ctx context.Context, what, repository, authFile string, err error) error {
	var e *host.Error
	if errors.As(err, &e) {
		return e
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	e = &host.Error{Component: component, Reason: v1.ReasonRegistryUnreachable, Retry: true}
	var cert *tls.CertificateVerificationError
	advice := "check the registry, the name, and the node's network and proxy settings"
	switch code := statusOf(err); {
	case code == http.StatusNotFound:
		e.Reason = v1.ReasonPackageNotFound
		advice = "push the package there, or correct its ref and digest in the fleet repo"
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		advice = "give the node credentials in registryAuthFile"
		if authFile != "" {
			advice = "check the credentials in " + authFile
		}
	case errors.Is(err, errTooLarge):
		e.Reason = v1.ReasonPackageInvalid
		advice = fmt.Sprintf("a manifest has at most %d bytes", MaxManifest)
	case errors.Is(err, errPlainHTTP):
		advice = "set plainHTTP for this registry if its network is trusted, or give it a certificate"
	case errors.As(err, &cert):
		advice = "name the registry's certificate authority as its caFile"
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		advice = "the connection broke; the download goes on where it stopped"
	}
	e.Err = fmt.Errorf("cannot fetch %s from %s: %s; %s", what, repository, oneLine(err), advice)
	return e
}

// oneLine returns err's text, parts of which a registry may have written, fit for a log.
func oneLine(err error) string {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, err.Error())
	if len(text) > maxErrorText {
		text = text[:maxErrorText] + " ..."
	}
	return strings.ToValidUTF8(strings.TrimSpace(text), "?")
}
