package guard

// systemPaths are never written by a task, whatever the file roots are.
var systemPaths = []string{
	"/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr",
	"/etc/apparmor", "/etc/apparmor.d", "/etc/apt", "/etc/bash.bashrc", "/etc/cron.d", "/etc/cron.daily", "/etc/cron.hourly",
	"/etc/cron.monthly", "/etc/cron.weekly", "/etc/crontab", "/etc/dbus-1", "/etc/dpkg", "/etc/environment", "/etc/fstab",
	"/etc/group", "/etc/gshadow", "/etc/init.d", "/etc/kernel", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
	"/etc/ld.so.preload", "/etc/modprobe.d", "/etc/nsswitch.conf", "/etc/pam.conf", "/etc/pam.d", "/etc/passwd", "/etc/polkit-1",
	"/etc/profile", "/etc/profile.d", "/etc/rc.local", "/etc/security", "/etc/selinux", "/etc/shadow", "/etc/ssh", "/etc/ssl",
	"/etc/sudoers", "/etc/sudoers.d", "/etc/sysctl.d", "/etc/systemd", "/etc/tmpfiles.d", "/etc/udev", "/etc/update-motd.d",
	"/root/.bashrc", "/root/.profile", "/root/.ssh", "/run/systemd", "/run/udev", "/var/spool/cron",
}

// systemUnits are never installed or controlled by a task, whatever the patterns of
// unit names are: the agent itself, the ways into the machine, and what holds
// it together.
var systemUnits = []string{
	"gpuaas-node-agent", "gpuaas-node-agent.*", "gpuaas-node-agent-*", "gpuaas-node-agent@*",
	"ssh.*", "ssh@*", "sshd.*", "sshd@*", "sshd-*",
	"systemd-*", "dbus.*", "dbus-*", "polkit.*", "init.*", "-.*", "user@*", "user-*", "user.*", "session-*", "system.*", "machine.*",
	"getty@*", "serial-getty@*", "console-getty.*", "debug-shell.*", "emergency.*", "rescue.*", "udev.*",
	"NetworkManager.*", "networking.*", "nftables.*", "firewalld.*", "auditd.*", "apparmor.*",
	"halt.*", "poweroff.*", "reboot.*", "kexec.*", "exit.*", "shutdown.*", "final.*", "umount.*", "suspend.*", "hibernate.*",
	"sleep.*", "ctrl-alt-del.*", "factory-reset.*",
}

// usualDependencies may be waited for and hooked into by every unit.
var usualDependencies = []string{
	"default.target", "multi-user.target", "graphical.target", "basic.target", "sysinit.target",
	"sockets.target", "timers.target", "paths.target",
	"network.target", "network-online.target", "network-pre.target", "nss-lookup.target", "nss-user-lookup.target",
	"local-fs.target", "remote-fs.target", "time-set.target", "time-sync.target",
}

// rootGroups give whoever is in them the whole machine.
var rootGroups = []string{
	"0", "root", "adm", "disk", "docker", "kmem", "libvirt", "lxd", "podman", "shadow", "sudo", "wheel",
}
