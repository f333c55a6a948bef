package child

import (
	"errors"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
)

// FuzzAnswer holds any answer of a child to: a result that was read, or a host.Error. A child
// that a stranger took over says what it likes.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"result":{"Text":"x"}}`, `{"error":{"component":"fetch","reason":"NoSpace","retry":true,"message":"full"}}`, `{"error":{}}`,
		`{"result":null}`, `{}`, `null`, `[]`, `{"result":{"Text":5}}`, `{"result":{},"error":{}}`, `{"result":{"Text":"x"}}{}`, "", "\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got struct{ Text string }
		err := Command{Name: "fuzz", Component: "fetch"}.decode(data, &got)
		var e *host.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("an untyped error: %v", err)
		}
	})
}
