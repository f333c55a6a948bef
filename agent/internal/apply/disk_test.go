package apply

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func TestDiskError(t *testing.T) {
	for code, want := range map[syscall.Errno]struct {
		reason v1.Reason
		words  string
	}{
		syscall.ENOSPC:    {v1.ReasonNoSpace, "free space"},
		syscall.EDQUOT:    {v1.ReasonNoSpace, "free space"},
		syscall.EROFS:     {v1.ReasonNotWritable, "read-only file system"},
		syscall.EACCES:    {v1.ReasonNotWritable, "runs as uid"},
		syscall.EPERM:     {v1.ReasonNotWritable, "runs as uid"},
		syscall.ENOTEMPTY: {v1.ReasonConflict, "in the way"},
		syscall.EIO:       {v1.ReasonInternal, "input/output error"},
	} {
		err := diskError("/etc/x", fmt.Errorf("cannot write /etc/x: %w", &os.PathError{Op: "write", Path: "/etc/x", Err: code}))
		var e *host.Error
		if !errors.As(err, &e) || e.Reason != want.reason || !e.Retry || !strings.Contains(err.Error(), want.words) || !errors.Is(err, code) {
			t.Errorf("%v: got %v", code, err)
		}
	}
}
