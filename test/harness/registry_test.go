package harness_test

import (
	"errors"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/gpuaas/node-agent/test/harness"
)

func TestRegistryStopsAndComesBack(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{})
	host, pid := r.Host, r.Pid
	if got := status(t, host, "", ""); got != http.StatusOK {
		t.Fatalf("/v2/ gives %d", got)
	}
	if err := r.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	if err := r.Stop(); err != nil {
		t.Errorf("stopping twice: %v", err)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Host != host {
		t.Errorf("came back on %s instead of %s", r.Host, host)
	}
}

func TestRegistryDemandsItsPassword(t *testing.T) {
	r := harness.NewRegistry(t, harness.RegistryOptions{User: "node", Password: "secret"})
	if got := status(t, r.Host, "", ""); got != http.StatusUnauthorized {
		t.Errorf("without a password: %d", got)
	}
	if got := status(t, r.Host, "node", "secret"); got != http.StatusOK {
		t.Errorf("with it: %d", got)
	}
}

func TestRegistryThatIsMissingIsExplained(t *testing.T) {
	t.Setenv(harness.RegistryBinaryEnv, "")
	t.Setenv("PATH", t.TempDir())
	t.Chdir(t.TempDir())
	_, err := harness.StartRegistry(t.Context(), harness.RegistryOptions{Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "make servers") {
		t.Errorf("got %v", err)
	}
}

func status(t *testing.T, host, user, password string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(user, password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
