package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func (w *world) agentConfig() string { return filepath.Join(w.agentDir(), "config.yaml") }
func (w *world) envFile() string     { return filepath.Join(w.etc(), "node-exporter.env") }

// startAgent is chapter 4: the agent is a service of the manager, as it will be
// on a node.
func startAgent(ctx context.Context, w *world) error {
	if err := w.writeAgent(); err != nil {
		return err
	}
	w.out.say("the agent's configuration: %s, and beside it trust/root.json", w.agentConfig())
	for _, args := range [][]string{{"daemon-reload"}, {"start", agentUnit}} {
		if err := w.systemctl(args...); err != nil {
			return err
		}
	}
	w.out.saw(0, "systemctl start returned: the agent said READY over sd_notify")
	took, err := wait(ctx, w.answers)
	if err != nil {
		return err
	}
	w.out.saw(took, "node_exporter answers on %s", w.exporterURL())
	if _, err := os.Stat(w.envFile()); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks(filepath.Join(w.packages(), "node-exporter", "current"))
	if err != nil {
		return err
	}
	w.out.saw(0, "env file %s; package %s", w.envFile(), target)
	u, err := w.unit(exporterUnit)
	if err != nil {
		return err
	}
	if u.active != "active" || u.file != "enabled" {
		return fmt.Errorf("the unit is %+v, want active and enabled", u)
	}
	w.out.saw(0, "systemctl shows it active and enabled, pid %s", u.pid)
	return w.settled(ctx)
}

// settled waits until the agent has watched the service for as long as its
// manifest asks and has nothing more to do.
func (w *world) settled(ctx context.Context) error {
	took, err := wait(ctx, func() error {
		status, reason, message, err := w.condition("Applied")
		if err != nil {
			return err
		}
		desired, observed, err := w.generations()
		if err != nil {
			return err
		}
		if status != "True" || desired != observed {
			return fmt.Errorf("condition Applied is %s (%s %s), generation %d of %d", status, reason, message, observed, desired)
		}
		return nil
	})
	if err == nil {
		w.out.say("the agent has seen it healthy and committed the generation (%d ms)", took.Milliseconds())
	}
	return err
}

func (w *world) writeAgent() error {
	if err := os.MkdirAll(filepath.Join(w.agentDir(), "trust"), 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(w.etc(), 0o755); err != nil {
		return err
	}
	root, err := os.ReadFile(filepath.Join(w.fleet(), "trust", "root.json"))
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`apiVersion: fleet.gpuaas.dev/v1
kind: AgentConfig
node: %s
source:
  url: %s
poll:
  interval: 1s
log:
  format: text
paths:
  state: %s
  run: %s
  packages: %s
  units: %s
  files: [%s]
`, nodeID, w.remote(), filepath.Join(w.agentDir(), "state"), filepath.Join(w.agentDir(), "run"), w.packages(), w.units, w.etc())
	unit := fmt.Sprintf(`[Unit]
Description=node-agent of the demo

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=60
ExecStart=%s --user --config %s run
ExecReload=kill -HUP $MAINPID
StandardOutput=append:%[3]s
StandardError=append:%[3]s
`, filepath.Join(w.bin, "gpuaas-node-agent"), w.agentConfig(), filepath.Join(w.agentDir(), "agent.log"))
	return errors.Join(
		os.WriteFile(filepath.Join(w.agentDir(), "trust", "root.json"), root, 0o644),
		os.WriteFile(w.agentConfig(), []byte(config), 0o644),
		os.WriteFile(filepath.Join(w.units, agentUnit), []byte(unit), 0o644),
	)
}

// systemctl shows and runs a command of systemctl.
func (w *world) systemctl(args ...string) error {
	w.out.command("systemctl --user " + strings.Join(args, " "))
	out, err := w.manager.Systemctl(args...)
	w.out.output(out)
	return err
}

// changeValue is chapter 5.
func changeValue(ctx context.Context, w *world) error {
	before, err := w.unit(exporterUnit)
	if err != nil {
		return err
	}
	if err := w.edit("profiles/node-exporter.yaml", "exporterLogLevel: info", "exporterLogLevel: warn"); err != nil {
		return err
	}
	if err := w.release(ctx, "Log less"); err != nil {
		return err
	}
	var after unit
	took, err := wait(ctx, func() (err error) {
		if after, err = w.unit(exporterUnit); err != nil {
			return err
		}
		if after.invocation == before.invocation || after.pid == "0" {
			return errors.New("the service was not restarted")
		}
		level, err := processEnv(after.pid, "LOG_LEVEL")
		if err == nil && level != "warn" {
			err = fmt.Errorf("the process has LOG_LEVEL=%s", level)
		}
		return err
	})
	if err != nil {
		return err
	}
	w.out.saw(took, "the running process has LOG_LEVEL=warn in /proc/%s/environ", after.pid)
	if err := w.settled(ctx); err != nil {
		return err
	}
	// A change to another node.
	w.out.say("and now a change that concerns %s only", otherNode)
	if err := w.append("nodes/"+otherNode+".yaml", "values:\n  exporterLogLevel: error\n"); err != nil {
		return err
	}
	if err := w.release(ctx, "Log even less on "+otherNode); err != nil {
		return err
	}
	if _, err := wait(ctx, w.agentIsAt(w.signedGood)); err != nil {
		return err
	}
	now, err := w.unit(exporterUnit)
	if err != nil {
		return err
	}
	if now != after {
		return fmt.Errorf("the service changed: %+v, was %+v", now, after)
	}
	w.out.saw(0, "the agent verified the new commit; the service runs on, same pid and invocation: restarted once in all")
	return nil
}

// append adds text to a file of the fleet repo.
func (w *world) append(file, text string) error {
	w.out.say("append to %s: %q", filepath.Join("fleet", file), text)
	f, err := os.OpenFile(filepath.Join(w.fleet(), file), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// handMade is chapter 6. The git server is off meanwhile, so no poll can have
// brought the repair.
func handMade(ctx context.Context, w *world) error {
	want, err := os.ReadFile(w.envFile())
	if err != nil {
		return err
	}
	addr := strings.TrimPrefix(w.git.URL, "http://")
	if err := w.git.Stop(); err != nil {
		return err
	}
	w.out.say("the git server is off from here on: nothing can come from a poll")
	w.out.command("echo LISTEN=0.0.0.0:1 > " + w.envFile())
	if err := os.WriteFile(w.envFile(), []byte("LISTEN=0.0.0.0:1\n"), 0o640); err != nil {
		return err
	}
	took, err := wait(ctx, func() error {
		got, err := os.ReadFile(w.envFile())
		if err == nil && string(got) != string(want) {
			err = errors.New("the env file still is the edited one")
		}
		return err
	})
	if err != nil {
		return err
	}
	w.out.saw(took, "the env file has its content back")
	if err := w.systemctl("stop", exporterUnit); err != nil {
		return err
	}
	stopped := time.Now()
	if _, err := wait(ctx, func() error {
		u, err := w.unit(exporterUnit)
		if err == nil && u.active != "active" {
			err = fmt.Errorf("the service is %s", u.active)
		}
		return err
	}); err != nil {
		return err
	}
	took = time.Since(stopped)
	w.out.saw(took, "the service is active again")
	if _, err := wait(ctx, w.answers); err != nil {
		return err
	}
	w.out.saw(0, "and answers")
	return w.restartGit(addr)
}

// unsigned is chapter 7.
func unsigned(ctx context.Context, w *world) error {
	before, err := w.unit(exporterUnit)
	if err != nil {
		return err
	}
	evil := filepath.Join(w.dir, "evil")
	for _, args := range [][]string{
		{"clone", "--quiet", "--branch", "signed", w.remote(), evil},
	} {
		if _, err := w.run(ctx, w.dir, "git", args...); err != nil {
			return err
		}
	}
	manifests, err := filepath.Glob(filepath.Join(evil, "targets/nodes/*/*", nodeID+".yaml"))
	if err != nil || len(manifests) != 1 {
		return errors.Join(err, fmt.Errorf("the signed branch has the manifests %v of this node, want one", manifests))
	}
	data, err := os.ReadFile(manifests[0])
	if err != nil {
		return err
	}
	w.out.say("somebody who can push but not sign edits %s: LOG_LEVEL becomes debug", strings.TrimPrefix(manifests[0], evil+"/"))
	if err := os.WriteFile(manifests[0], []byte(strings.ReplaceAll(string(data), "LOG_LEVEL: warn", "LOG_LEVEL: debug")), 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"commit", "--quiet", "--all", "--message", "Trust me"},
		{"push", "--quiet", "origin", "signed"},
	} {
		if _, err := w.run(ctx, evil, "git", args...); err != nil {
			return err
		}
	}
	took, err := wait(ctx, func() error {
		status, reason, _, err := w.condition("Verified")
		if err == nil && status != "False" {
			err = fmt.Errorf("condition Verified is %s (%s)", status, reason)
		}
		return err
	})
	if err != nil {
		return err
	}
	_, reason, message, _ := w.condition("Verified")
	w.out.saw(took, "status refuses it: %s: %s", reason, message)
	_, err = w.try(ctx, w.dir, "gpuaas-node-agent", "--user", "--config", w.agentConfig(), "status")
	if code := exitCode(err); code != 1 {
		return fmt.Errorf("status ended with exit code %d, want 1", code)
	}
	after, err := w.unit(exporterUnit)
	if err != nil {
		return err
	}
	if err := w.answers(); err != nil {
		return err
	}
	if after != before {
		return fmt.Errorf("the service changed: %+v, was %+v", after, before)
	}
	w.out.saw(0, "the service runs on, same pid and invocation, and answers")
	w.out.say("the branch is put back to the last signed commit")
	if _, err := w.run(ctx, evil, "git", "push", "--quiet", "--force", "origin", w.signedGood+":refs/heads/signed"); err != nil {
		return err
	}
	took, err = wait(ctx, func() error {
		status, reason, _, err := w.condition("Verified")
		if err == nil && status != "True" {
			err = fmt.Errorf("condition Verified is %s (%s)", status, reason)
		}
		return err
	})
	if err == nil {
		w.out.saw(took, "status believes the branch again")
	}
	return err
}
