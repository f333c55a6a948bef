package v1_test

import (
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

const manifestText = `apiVersion: fleet.gpuaas.dev/v1
kind: NodeManifest
node: gpu-001
generation: 42
source:
  repo: https://git.example.com/fleet.git
  commit: "0123456789012345678901234567890123456789"
packages:
  - name: node-exporter
    ref: registry.example.com/gpuaas/node-exporter
    digest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
tasks:
  - id: exporter-env
    type: runtime.write_env_file
    with:
      path: /etc/gpuaas/node-exporter.env
      mode: "0640"
      env:
        LISTEN: "127.0.0.1:9100"
  - id: exporter-conf
    type: runtime.write_config_file
    with:
      path: /etc/gpuaas/node-exporter.conf
      content: |
        [a]
          b = "c"

        # end
  - id: exporter-unit
    type: runtime.install_service_unit
    with:
      unit: gpuaas-node-exporter.service
      from:
        package: node-exporter
        file: systemd/node-exporter.service
  - id: exporter
    type: runtime.service_control
    with:
      unit: gpuaas-node-exporter.service
      state: running
      enabled: true
      restartOn:
        - package/node-exporter
        - exporter-env
        - exporter-unit
      health:
        stableFor: "5s"
        timeout: "1m"
        http:
          url: http://127.0.0.1:9100/metrics
`

func TestManifestIsCanonical(t *testing.T) {
	m, err := v1.DecodeManifest("m.yaml", []byte(manifestText))
	if err != nil {
		t.Fatal(err)
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(data) != manifestText {
		t.Errorf("got:\n%s", data)
	}
}
