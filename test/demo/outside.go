package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What follows looks at the world as an operator would, never through the agent.

// unit is what systemctl shows.
type unit struct {
	load, active, file, invocation, pid string
}

func (w *world) unit(name string) (unit, error) {
	out, err := w.manager.Systemctl("show", "-p", "LoadState,ActiveState,UnitFileState,InvocationID,MainPID", name)
	if err != nil {
		return unit{}, err
	}
	v := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		key, value, _ := strings.Cut(line, "=")
		v[key] = value
	}
	return unit{v["LoadState"], v["ActiveState"], v["UnitFileState"], v["InvocationID"], v["MainPID"]}, nil
}

// answers checks that node_exporter answers HTTP.
func (w *world) answers() error {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get(w.exporterURL())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", w.exporterURL(), resp.Status)
	}
	return nil
}

// processEnv returns a variable of a running process.
func processEnv(pid, name string) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
	if err != nil {
		return "", err
	}
	for _, kv := range bytes.Split(data, []byte{0}) {
		if key, value, ok := strings.Cut(string(kv), "="); ok && key == name {
			return value, nil
		}
	}
	return "", fmt.Errorf("process %s has no variable %s", pid, name)
}

func gone(path string) error {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%s is still there", path)
}

// registryDigest asks the registry for the digest of a manifest.
func (w *world) registryDigest(ctx context.Context, repository, digest string) error {
	url := fmt.Sprintf("http://%s/v2/%s/manifests/%s", w.registry.Host, repository, digest)
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != digest {
		return fmt.Errorf("the registry has %q (%s), not %s", got, resp.Status, digest)
	}
	return nil
}

// condition is one condition of the status document; the one place where the
// story reads what the agent says, because that is what chapter 7 is about.
func (w *world) condition(name string) (status, reason, message string, err error) {
	data, err := os.ReadFile(filepath.Join(w.agentDir(), "run", "status.json"))
	if err != nil {
		return "", "", "", err
	}
	var doc struct {
		Conditions []struct{ Type, Status, Reason, Message string }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return "", "", "", err
	}
	for _, c := range doc.Conditions {
		if c.Type == name {
			return c.Status, c.Reason, c.Message, nil
		}
	}
	return "", "", "", fmt.Errorf("status has no condition %s", name)
}

// generations are those of the status document, to know when to look.
func (w *world) generations() (desired, observed int64, err error) {
	var doc struct{ DesiredGeneration, ObservedGeneration int64 }
	data, err := os.ReadFile(filepath.Join(w.agentDir(), "run", "status.json"))
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	return doc.DesiredGeneration, doc.ObservedGeneration, err
}

// agentIsAt checks that the agent has verified a commit of the signed branch.
func (w *world) agentIsAt(commit string) func() error {
	return func() error {
		var doc struct{ SourceCommit string }
		data, err := os.ReadFile(filepath.Join(w.agentDir(), "run", "status.json"))
		if err == nil {
			err = json.Unmarshal(data, &doc)
		}
		if err == nil && doc.SourceCommit != commit {
			err = fmt.Errorf("the agent is at %s", doc.SourceCommit)
		}
		return err
	}
}
