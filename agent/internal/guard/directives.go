package guard

import "strings"

// judge looks at one assignment of a unit.
type judge func(u *unitCheck, a assignment)

// free is for directives that can only restrict or describe the unit itself.
func free(*unitCheck, assignment) {}

// sections has, for every kind of unit, the sections that systemd reads there,
// each with its directives. What isn't listed is refused.
var sections = map[string]map[string]map[string]judge{
	".service": {"Unit": unitDirectives, "Service": serviceDirectives, "Install": installDirectives},
	".socket":  {"Unit": unitDirectives, "Socket": socketDirectives, "Install": installDirectives},
	".timer":   {"Unit": unitDirectives, "Timer": timerDirectives, "Install": installDirectives},
	".path":    {"Unit": unitDirectives, "Path": pathDirectives, "Install": installDirectives},
	".target":  {"Unit": unitDirectives, "Install": installDirectives},
}

var unitDirectives = table(
	each(free, `Description Documentation After Before PartOf StopPropagatedFrom ReloadPropagatedFrom
		RequiresMountsFor WantsMountsFor StopWhenUnneeded RefuseManualStart RefuseManualStop CollectMode
		JobTimeoutSec JobRunningTimeoutSec StartLimitIntervalSec StartLimitInterval StartLimitBurst
		IgnoreOnIsolate SurviveFinalKillSignal`),
	each(free, conditions("Condition")), each(free, conditions("Assert")),
	each((*unitCheck).pulledIn, `Wants Requires Requisite BindsTo`),
	each((*unitCheck).ownUnits, `Upholds OnFailure OnSuccess PropagatesReloadTo PropagatesStopTo JoinsNamespaceOf`),
	each((*unitCheck).conflicts, `Conflicts`),
)

var installDirectives = table(
	each((*unitCheck).pulledIn, `WantedBy RequiredBy UpheldBy`),
	each((*unitCheck).aliases, `Alias`),
	each((*unitCheck).ownUnits, `Also`),
	each(free, `DefaultInstance`),
)

var serviceDirectives = table(execDirectives, resourceDirectives,
	each(free, `Type ExitType RemainAfterExit GuessMainPID BusName
		Restart RestartMode RestartSec RestartSteps RestartMaxDelaySec RestartPreventExitStatus RestartForceExitStatus SuccessExitStatus
		TimeoutSec TimeoutStartSec TimeoutStopSec TimeoutAbortSec TimeoutStartFailureMode TimeoutStopFailureMode RuntimeMaxSec
		RuntimeRandomizedExtraSec WatchdogSec NotifyAccess NonBlocking FileDescriptorStoreMax FileDescriptorStorePreserve
		OOMPolicy ReloadSignal`),
	each((*unitCheck).exec, `ExecStart ExecStartPre ExecStartPost ExecCondition ExecReload ExecReloadPost ExecStop ExecStopPost`),
	each((*unitCheck).runtimePath, `PIDFile`),
	each((*unitCheck).ownUnits, `Sockets`),
)

var socketDirectives = table(execDirectives, resourceDirectives,
	each(free, `SocketProtocol BindIPv6Only Backlog SocketMode DirectoryMode Accept Writable FlushPending MaxConnections
		MaxConnectionsPerSource KeepAlive KeepAliveTimeSec KeepAliveIntervalSec KeepAliveProbes NoDelay Priority DeferAcceptSec
		ReceiveBuffer SendBuffer IPTOS IPTTL Mark ReusePort PipeSize FreeBind Broadcast PassCredentials PassSecurity PassPacketInfo
		Timestamping RemoveOnStop FileDescriptorName TriggerLimitIntervalSec TriggerLimitBurst PollLimitIntervalSec PollLimitBurst
		TimeoutSec`),
	each((*unitCheck).listen, `ListenStream ListenDatagram ListenSequentialPacket ListenFIFO`),
	each((*unitCheck).exec, `ExecStartPre ExecStartPost ExecStopPre ExecStopPost`),
	each((*unitCheck).group, `SocketGroup`),
	each((*unitCheck).socketUser, `SocketUser`),
	each((*unitCheck).ownUnits, `Service`),
)

var timerDirectives = table(
	each(free, `OnActiveSec OnBootSec OnStartupSec OnUnitActiveSec OnUnitInactiveSec OnCalendar OnClockChange OnTimezoneChange
		AccuracySec RandomizedDelaySec FixedRandomDelay RandomizedOffsetSec Persistent RemainAfterElapse`),
	each((*unitCheck).ownUnits, `Unit`),
)

var pathDirectives = table(
	each(free, `PathExists PathExistsGlob PathChanged PathModified DirectoryNotEmpty TriggerLimitIntervalSec TriggerLimitBurst`),
	each((*unitCheck).ownUnits, `Unit`),
)

// execDirectives are those of systemd.exec(5) and systemd.kill(5).
var execDirectives = table(
	each(free, `WorkingDirectory UMask Nice OOMScoreAdjust CoredumpFilter KeyringMode TimerSlackNSec IgnoreSIGPIPE
		IOSchedulingClass IOSchedulingPriority CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUAffinity
		NUMAPolicy NUMAMask MemoryKSM DynamicUser SetLoginEnvironment RemoveIPC UtmpIdentifier
		LimitCPU LimitFSIZE LimitDATA LimitSTACK LimitCORE LimitRSS LimitNOFILE LimitAS LimitNPROC LimitMEMLOCK LimitLOCKS
		LimitSIGPENDING LimitMSGQUEUE LimitNICE LimitRTPRIO LimitRTTIME
		CapabilityBoundingSet NoNewPrivileges ProtectSystem ProtectHome ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths
		NoExecPaths PrivateTmp PrivateDevices PrivateNetwork PrivateIPC PrivatePIDs PrivateUsers PrivateMounts ProtectHostname
		ProtectClock ProtectKernelTunables ProtectKernelModules ProtectKernelLogs ProtectControlGroups ProtectProc ProcSubset
		RestrictAddressFamilies RestrictFileSystems RestrictNamespaces LockPersonality MemoryDenyWriteExecute RestrictRealtime
		RestrictSUIDSGID SystemCallFilter SystemCallErrorNumber SystemCallArchitectures SystemCallLog
		UnsetEnvironment StandardInputText StandardInputData SetCredential SetCredentialEncrypted
		LogLevelMax LogExtraFields LogRateLimitIntervalSec LogRateLimitBurst LogFilterPatterns
		SyslogIdentifier SyslogFacility SyslogLevel SyslogLevelPrefix
		RuntimeDirectoryMode RuntimeDirectoryPreserve StateDirectoryMode CacheDirectoryMode LogsDirectoryMode ConfigurationDirectoryMode
		TimeoutCleanSec KillMode KillSignal RestartKillSignal SendSIGHUP SendSIGKILL FinalKillSignal WatchdogSignal`),
	each((*unitCheck).user, `User`),
	each((*unitCheck).group, `Group SupplementaryGroups`),
	each((*unitCheck).environment, `Environment PassEnvironment`),
	each((*unitCheck).environmentFile, `EnvironmentFile`),
	each((*unitCheck).credential, `LoadCredential LoadCredentialEncrypted`),
	each((*unitCheck).standardStream, `StandardInput StandardOutput StandardError`),
	each((*unitCheck).directories, `RuntimeDirectory StateDirectory CacheDirectory LogsDirectory ConfigurationDirectory`),
)

// resourceDirectives are those of systemd.resource-control(5) that limit the unit.
var resourceDirectives = table(
	each(free, `CPUAccounting CPUWeight StartupCPUWeight CPUQuota CPUQuotaPeriodSec AllowedCPUs StartupAllowedCPUs AllowedMemoryNodes
		StartupAllowedMemoryNodes MemoryAccounting MemoryMin MemoryLow MemoryHigh MemoryMax MemorySwapMax MemoryZSwapMax
		StartupMemoryHigh StartupMemoryMax TasksAccounting TasksMax IOAccounting IOWeight StartupIOWeight IODeviceWeight IOReadBandwidthMax
		IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec IPAccounting IPAddressAllow IPAddressDeny
		SocketBindAllow SocketBindDeny RestrictNetworkInterfaces DeviceAllow DevicePolicy ManagedOOMSwap ManagedOOMMemoryPressure
		ManagedOOMMemoryPressureLimit ManagedOOMPreference MemoryPressureWatch MemoryPressureThresholdSec`),
	each((*unitCheck).slice, `Slice`),
)

// dangerous says of well-known directives why they are refused; others are
// simply not known.
var dangerous = map[string]string{
	"RootDirectory": "it replaces the file system that paths are judged on", "RootImage": "it replaces the file system that paths are judged on",
	"BindPaths": "it puts other files where packages are", "BindReadOnlyPaths": "it puts other files where packages are",
	"MountImages": "it puts other files where packages are", "ExtensionImages": "it puts other files where packages are",
	"ExtensionDirectories": "it puts other files where packages are", "TemporaryFileSystem": "it hides the files that are judged",
	"PAMName": "it runs the PAM modules of a login", "AmbientCapabilities": "it raises privileges", "SecureBits": "it raises privileges",
	"Delegate": "it hands a part of the control group tree to the service", "ImportCredential": "it reads credentials of the machine",
	"OpenFile": "it opens files as root", "ExecSearchPath": "executables are named by their full path",
	"FailureAction": "it can switch the machine off", "SuccessAction": "it can switch the machine off",
	"StartLimitAction": "it can switch the machine off", "JobTimeoutAction": "it can switch the machine off",
	"DefaultDependencies": "units without them can block boot and shutdown", "OnFailureJobMode": "it can stop every other unit",
	"OnSuccessJobMode": "it can stop every other unit", "AllowIsolate": "it can stop every other unit",
	"Symlinks": "it makes symlinks anywhere", "MakeDirectory": "it makes folders anywhere", "ListenSpecial": "it opens devices as root",
	"TTYPath": "it takes a terminal", "NetworkNamespacePath": "it joins what others run in", "LogNamespace": "it starts another journal",
	"BPFProgram": "it loads programs into the kernel", "IPIngressFilterPath": "it loads programs into the kernel",
	"IPEgressFilterPath": "it loads programs into the kernel", "PermissionsStartOnly": "it raises privileges",
	"RootDirectoryStartOnly": "it raises privileges", "USBFunctionDescriptors": "it programs devices",
}

// loaderVariables make the dynamic loader run other code in any program.
var loaderVariables = map[string]bool{"LD_PRELOAD": true, "LD_AUDIT": true}

func each(j judge, names string) map[string]judge {
	out := map[string]judge{}
	for _, n := range strings.Fields(names) {
		out[n] = j
	}
	return out
}

func table(parts ...map[string]judge) map[string]judge {
	out := map[string]judge{}
	for _, p := range parts {
		for name, j := range p {
			out[name] = j
		}
	}
	return out
}

// conditions names ConditionX= or AssertX= for everything that can be tested.
func conditions(prefix string) string {
	var b strings.Builder
	for _, what := range strings.Fields(`Architecture Firmware Virtualization Host KernelCommandLine KernelVersion Version Credential
		Environment Security Capability ACPower NeedsUpdate FirstBoot PathExists PathExistsGlob PathIsDirectory PathIsSymbolicLink
		PathIsMountPoint PathIsReadWrite PathIsEncrypted DirectoryNotEmpty FileNotEmpty FileIsExecutable User Group
		ControlGroupController Memory CPUs CPUFeature OSRelease MemoryPressure CPUPressure IOPressure`) {
		b.WriteString(" " + prefix + what)
	}
	return b.String()
}
