package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxRequest caps what Serve reads. The parent is trusted; this guards against
// a hand that runs the hidden command with a device on stdin.
const maxRequest = 16 << 20

// Serve is the child's side: it takes on the limits that Run set, decodes one
// request from stdin, calls do, and
// writes the answer to stdout. An error of do is part of the answer, as the
// fields of host.AsError, and not Serve's own: Serve fails only when it could
// not read the request or write the answer, and then the command must exit
// with another code than 0.
func Serve[Request, Result any](ctx context.Context, stdin io.Reader, stdout io.Writer, do func(context.Context, Request) (Result, error)) error {
	limits, child, err := fromEnvironment()
	if err != nil {
		return err
	}
	if child {
		if err := limits.apply(); err != nil {
			return err
		}
	}
	data, err := io.ReadAll(io.LimitReader(stdin, maxRequest+1))
	if err != nil {
		return fmt.Errorf("cannot read the request: %w", err)
	}
	if len(data) > maxRequest {
		return fmt.Errorf("cannot read the request: more than %d bytes", maxRequest)
	}
	var request Request
	if err := json.Unmarshal(data, &request); err != nil {
		return fmt.Errorf("cannot read the request; this command is for the agent's own use: %w", err)
	}
	var a answer
	result, err := do(ctx, request)
	if err != nil {
		a.Error = fromHost(host.AsError(err))
	} else if a.Result, err = json.Marshal(result); err != nil {
		return fmt.Errorf("cannot encode the result: %w", err)
	}
	if err := json.NewEncoder(stdout).Encode(a); err != nil {
		return fmt.Errorf("cannot write the answer: %w", err)
	}
	return nil
}

// answer is what travels back: exactly one of its fields is set.
type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

// failure is host.Error on the wire.
type failure struct {
	Component string    `json:"component"`
	Element   string    `json:"element,omitempty"`
	Reason    v1.Reason `json:"reason"`
	Retry     bool      `json:"retry"`
	Message   string    `json:"message"`
}

func fromHost(e *host.Error) *failure {
	return &failure{e.Component, e.Element, e.Reason, e.Retry, e.Err.Error()}
}

func (f *failure) asHost() *host.Error {
	return &host.Error{
		Component: f.Component, Element: f.Element, Reason: f.Reason, Retry: f.Retry,
		Err: errors.New(f.Message),
	}
}
