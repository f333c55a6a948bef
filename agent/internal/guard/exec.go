package guard

import (
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/guard/unitfile"
)

// exec judges every command of an Exec line.
func (u *unitCheck) exec(a assignment) {
	commands, err := unitfile.ParseExec(a.Value)
	if err != nil {
		u.refuseAt(RuleSyntax, a, "%v", err)
		return
	}
	for _, c := range commands {
		if why := u.command(c); why != "" {
			u.refuseAt(RuleExec, a, "%s: %s", c.Prefixes+c.Path, why)
		}
	}
}

// command says why a command may not run, or "".
func (u *unitCheck) command(c unitfile.Command) string {
	if i := strings.IndexAny(c.Prefixes, "+!|"); i >= 0 {
		return "the prefix " + c.Prefixes[i:i+1] + " raises privileges or runs a shell; allowed are - : @"
	}
	switch {
	case strings.ContainsAny(c.Path, "%$"):
		return "specifiers and variables are not allowed in the path of a program"
	case strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"'\\`*?[];&|<>", r) }):
		return "white space, quotes and wildcards are not allowed in the path of a program"
	case !path.IsAbs(c.Path):
		return "the path of a program must be absolute"
	case path.Clean(c.Path) != c.Path:
		return "the path of a program must be clean (no .., //, or / at the end)"
	}
	if named(c.Path, launchers) {
		return "shells and programs that start others are never run by a unit; put a program into the package"
	}
	if listed := slices.Contains(u.g.Binaries, c.Path); listed && strings.Contains(c.Prefixes, "@") {
		return "a listed binary must run under its own name, without the prefix @"
	} else if why := u.inPackage(c.Path); why != "" && !listed {
		return why + "; programs come from a package of this manifest, or are listed in binaries of guard.yaml"
	}
	if named(c.Path, interpreters) {
		return u.script(c)
	}
	return ""
}

// script says why an interpreter may not run what it is given, or "": it must be
// a file of a package, and no option may come before it, since most
// interpreters have one that takes code.
func (u *unitCheck) script(c unitfile.Command) string {
	args := c.Args
	if strings.Contains(c.Prefixes, "@") {
		args = args[min(1, len(args)):]
	}
	const only = "an interpreter may run only a file of a package of this manifest, named as its first argument"
	if len(args) == 0 {
		return only
	}
	if p := args[0]; strings.ContainsAny(p, "%$") || path.Clean(p) != p || u.inPackage(p) != "" {
		return only + ", found " + p
	}
	return ""
}

// named reports whether a program has one of the names, with or without a
// version at its end: python3.11 is python.
func named(program string, names map[string]bool) bool {
	base := strings.ToLower(path.Base(program))
	return names[base] || names[strings.TrimRight(base, "0123456789.-")]
}

// launchers start what their arguments say, so that judging them would mean
// to judge a program.
var launchers = set(`sh bash dash ash zsh ksh mksh lksh pdksh rbash rksh rzsh yash fish csh tcsh rc es elvish nu pwsh xonsh busybox toybox
	env nohup nice ionice chrt taskset numactl timeout setsid stdbuf time xargs parallel flock script watch exec command
	sudo su doas run runuser pkexec gosu su-exec setpriv capsh unshare nsenter chroot setarch linux x86_64 i386 prlimit start-stop-daemon
	systemd-run systemd-nspawn systemctl machinectl busctl dbus-run-session dbus-launch dbus-send
	ssh socat nc ncat netcat expect tmux screen at batch crontab find fd sed awk gawk mawk nawk vi vim ex ed emacs nvim
	make cmake gdb gdbserver lldb strace ltrace perf unbuffer rlwrap
	ld-linux ld-linux-x86-64.so ld-linux-aarch64.so ld.so ld-musl-x86_64.so ld-musl-aarch64.so
	docker podman nerdctl crictl ctr runc crun bwrap firejail proot fakeroot kexec insmod modprobe mount umount`)

// interpreters run a program that is given as text.
var interpreters = set(`python pypy perl ruby irb node nodejs deno bun lua luajit php tclsh wish guile racket rscript julia jshell groovy
	erl elixir escript ocaml ghci runghc scala sbcl clisp octave m4 sqlite`)

func set(words string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(words) {
		out[w] = true
	}
	return out
}
