package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/test/harness"
)

// How often a figure is taken; the mean is shown, of memory the most.
const (
	quietPolls = 200
	quietPeer  = 5
	changes    = 5
)

// pollSuite measures what watching the signed branch costs a node: nothing new,
// another node's change, its own, and the first time; beside git itself.
func pollSuite(ctx context.Context, env environment, table *Table) error {
	probe := filepath.Join(env.dir, "probe")
	if _, _, err := measure(ctx, "", "go", "build", "-o", probe, "github.com/gpuaas/node-agent/agent/internal/source/probe"); err != nil {
		return err
	}
	root := filepath.Join(env.dir, "git")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	server, err := startGitServer(ctx, root)
	if err != nil {
		return err
	}
	for _, n := range env.nodes {
		p := &pollBench{env: env, table: table, probe: probe, server: server, nodes: n}
		if err := p.run(ctx, root); err != nil {
			return errors.Join(fmt.Errorf("%d nodes: %w", n, err), server.stop())
		}
	}
	return server.stop()
}

type pollBench struct {
	env    environment
	table  *Table
	probe  string
	server *gitServer
	nodes  int

	fleet *harness.SyntheticFleet
	url   string
	// dir is the source's, clone is git's, known is the commit of both.
	dir, clone, known string
}

// polled is what the probe prints.
type polled struct {
	Commit              string
	Polls               int
	Wall, CPU, ChildCPU time.Duration
	ChildRSS            int64
	wire                int64
}

func (p *pollBench) run(ctx context.Context, root string) error {
	name := strconv.Itoa(p.nodes) + ".git"
	p.env.progress("poll: making a signed branch of %d nodes", p.nodes)
	repo, err := harness.CreateGitRepo(filepath.Join(root, name))
	if err != nil {
		return err
	}
	if p.fleet, err = harness.ImportFleet(repo, "signed", p.nodes); err != nil {
		return err
	}
	p.url = p.server.url + "/" + name
	p.dir, p.clone = filepath.Join(p.env.dir, name+"-source"), filepath.Join(p.env.dir, name+"-clone")
	p.env.progress("poll: measuring")
	for _, step := range []func(context.Context) error{p.first, p.quiet, p.others, p.own, p.unfiltered} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// poll runs the probe for node 0.
func (p *pollBench) poll(ctx context.Context, dir string, args ...string) (polled, error) {
	if _, err := p.server.wire(); err != nil {
		return polled{}, err
	}
	args = append([]string{"-agent", p.env.agent, "-url", p.url, "-dir", dir, "-known", p.known, "-wanted", strings.Join(p.fleet.Wanted(0), ",")}, args...)
	out, _, err := measure(ctx, "", p.probe, args...)
	if err != nil {
		return polled{}, err
	}
	var result polled
	if err := json.Unmarshal(out, &result); err != nil {
		return polled{}, err
	}
	result.wire, err = p.server.wire()
	return result, err
}

// git runs git and returns what it took and what went over the wire.
func (p *pollBench) git(ctx context.Context, dir string, args ...string) (spent, int64, error) {
	if _, err := p.server.wire(); err != nil {
		return spent{}, 0, err
	}
	_, s, err := measure(ctx, dir, "git", args...)
	if err != nil {
		return spent{}, 0, err
	}
	wire, err := p.server.wire()
	return s, wire, err
}

func (p *pollBench) add(what string, ours, peer Quantity, peerName string, target Quantity) {
	p.table.Add(Row{What: fmt.Sprintf("%s, %d nodes", what, p.nodes), Ours: ours, Peer: peer, PeerName: peerName, Target: target})
}

func (p *pollBench) first(ctx context.Context) error {
	ours, err := p.poll(ctx, p.dir)
	if err != nil {
		return err
	}
	p.known = ours.Commit
	peer, wire, err := p.git(ctx, "", "clone", "--quiet", "--bare", "--depth=1", "--single-branch", "--branch=signed", p.url, p.clone+"-shallow")
	if err != nil {
		return err
	}
	if _, _, err := p.git(ctx, "", "clone", "--quiet", "--bare", "--single-branch", "--branch=signed", p.url, p.clone); err != nil {
		return err
	}
	const name = "git clone --depth=1"
	p.add("first clone: wire", Size(ours.wire), Size(wire), name, Quantity{})
	p.add("first clone: CPU", Time(ours.CPU+ours.ChildCPU), Time(peer.cpu), name, Quantity{})
	p.add("first clone: peak RSS", Size(ours.ChildRSS), Size(peer.rss), name, Size(40_000_000))
	return nil
}

func (p *pollBench) quiet(ctx context.Context) error {
	ours, err := p.poll(ctx, p.dir, "-warm", "-polls", strconv.Itoa(quietPolls))
	if err != nil {
		return err
	}
	var cpu time.Duration
	var wire int64
	for range quietPeer {
		peer, bytes, err := p.git(ctx, "", "ls-remote", p.url, "refs/heads/signed")
		if err != nil {
			return err
		}
		cpu, wire = cpu+peer.cpu, wire+bytes
	}
	// The warming poll asked twice, once for the server's capabilities.
	p.add("poll, nothing new: wire", Size(ours.wire/(quietPolls+2)), Size(wire/quietPeer), "git ls-remote", Size(1000))
	p.add("poll, nothing new: CPU", Time(ours.CPU/quietPolls), Time(cpu/quietPeer), "git ls-remote", Time(time.Millisecond))
	return nil
}

func (p *pollBench) others(ctx context.Context) error {
	return p.changed(ctx, "poll, another node's change", func(i int) int { return 1 + i }, Size(60_000), Time(50*time.Millisecond))
}

func (p *pollBench) own(ctx context.Context) error {
	return p.changed(ctx, "poll, own change", func(int) int { return 0 }, Quantity{}, Quantity{})
}

// changed measures polls that each find one node's change.
func (p *pollBench) changed(ctx context.Context, what string, node func(int) int, wireTarget, cpuTarget Quantity) error {
	var cpu, wall, peerCPU time.Duration
	var wire, rss, peerWire int64
	for i := range changes {
		if _, err := p.fleet.ChangeNode(node(i)); err != nil {
			return err
		}
		ours, err := p.poll(ctx, p.dir)
		if err != nil {
			return err
		}
		p.known = ours.Commit
		cpu, wall, wire, rss = cpu+ours.CPU+ours.ChildCPU, wall+ours.Wall, wire+ours.wire, max(rss, ours.ChildRSS)
		peer, bytes, err := p.git(ctx, p.clone, "fetch", "--quiet", p.url, "+refs/heads/signed:refs/heads/signed")
		if err != nil {
			return err
		}
		peerCPU, peerWire = peerCPU+peer.cpu, peerWire+bytes
	}
	const name = "git fetch"
	p.add(what+": wire", Size(wire/changes), Size(peerWire/changes), name, wireTarget)
	p.add(what+": CPU", Time(cpu/changes), Time(peerCPU/changes), name, cpuTarget)
	p.add(what+": time", Time(wall/changes), Quantity{}, "", Quantity{})
	p.add(what+": peak RSS", Size(rss), Quantity{}, "", Quantity{})
	return nil
}

// unfiltered measures the same against a server that sends whole trees only.
func (p *pollBench) unfiltered(ctx context.Context) error {
	if _, err := p.fleet.Repo.Git("config", "uploadpack.allowFilter", "false"); err != nil {
		return err
	}
	before := p.known
	p.known = ""
	dir := p.dir + "-unfiltered"
	first, err := p.poll(ctx, dir)
	if err != nil {
		return err
	}
	if first.Commit != before {
		return fmt.Errorf("the branch is at %s, not at %s", first.Commit, before)
	}
	p.known = before
	if _, err := p.fleet.ChangeNode(1); err != nil {
		return err
	}
	change, err := p.poll(ctx, dir)
	if err != nil {
		return err
	}
	p.add("first clone, server without filters: wire", Size(first.wire), Quantity{}, "", Quantity{})
	p.add("first clone, server without filters: peak RSS", Size(first.ChildRSS), Quantity{}, "", Size(40_000_000))
	p.add("another node's change, server without filters: wire", Size(change.wire), Quantity{}, "", Size(60_000))
	p.add("another node's change, server without filters: CPU", Time(change.CPU+change.ChildCPU), Quantity{}, "", Time(50*time.Millisecond))
	return nil
}
