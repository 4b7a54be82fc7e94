# Copyright: (c) 2026, the asgiops.fastapi_host authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directives by which a unit may be confined, and what is wrong with a mapping of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.asgiops.fastapi_host.plugins.plugin_utils import _shapes

# systemd.exec(5), systemd.resource-control(5) and systemd.kill(5) of systemd 252 (EL9) and 257 (EL10). systemd only
# warns of a name that it does not know, so that the unit would run without what was asked for.
KNOWN = frozenset(
    re.findall(
        r"\w+",
        """
    AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFProgram BindPaths BindReadOnlyPaths
    CacheDirectory CacheDirectoryMode CapabilityBoundingSet ConfigurationDirectory ConfigurationDirectoryMode
    CoredumpFilter CoredumpReceive CPUAccounting CPUAffinity CPUQuota CPUQuotaPeriodSec CPUSchedulingPolicy
    CPUSchedulingPriority CPUSchedulingResetOnFork CPUWeight Delegate DelegateSubgroup DeviceAllow DevicePolicy
    DisableControllers ExecPaths ExtensionDirectories ExtensionImages IOAccounting IODeviceLatencyTargetSec
    IODeviceWeight IOReadBandwidthMax IOReadIOPSMax IOSchedulingClass IOSchedulingPriority IOWeight IOWriteBandwidthMax
    IOWriteIOPSMax IPAccounting IPAddressAllow IPAddressDeny IPCNamespacePath IPEgressFilterPath IPIngressFilterPath
    IgnoreSIGPIPE ImportCredential InaccessiblePaths KeyringMode LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE
    LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNPROC LimitRSS LimitRTPRIO LimitRTTIME LimitSIGPENDING
    LimitSTACK LoadCredential LoadCredentialEncrypted LockPersonality LogLevelMax LogNamespace LogRateLimitBurst
    LogRateLimitIntervalSec LogsDirectory LogsDirectoryMode ManagedOOMMemoryPressure ManagedOOMMemoryPressureLimit
    ManagedOOMPreference ManagedOOMSwap MemoryAccounting MemoryDenyWriteExecute MemoryHigh MemoryKSM MemoryLow MemoryMax
    MemoryMin MemoryPressureThresholdSec MemoryPressureWatch MemorySwapMax MemoryZSwapMax MemoryZSwapWriteback
    MountAPIVFS MountFlags MountImages NFTSet NUMAMask NUMAPolicy NetworkNamespacePath Nice NoExecPaths NoNewPrivileges
    OOMScoreAdjust PassEnvironment Personality PrivateDevices PrivateIPC PrivateMounts PrivateNetwork PrivatePIDs
    PrivateTmp PrivateUsers ProcSubset ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs
    ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyPaths ReadWritePaths RemoveIPC
    RestrictAddressFamilies RestrictFileSystems RestrictNamespaces RestrictNetworkInterfaces RestrictRealtime
    RestrictSUIDSGID RuntimeDirectoryMode RuntimeDirectoryPreserve SELinuxContext SecureBits SetLoginEnvironment Slice
    SmackProcessLabel SocketBindAllow SocketBindDeny StandardError StandardOutput StartupAllowedCPUs
    StartupAllowedMemoryNodes StartupCPUWeight StartupIOWeight StartupMemoryHigh StartupMemoryLow StartupMemoryMax
    StartupMemorySwapMax StartupMemoryZSwapMax StateDirectory StateDirectoryMode SupplementaryGroups SyslogFacility
    SyslogIdentifier SyslogLevel SyslogLevelPrefix SystemCallArchitectures SystemCallErrorNumber SystemCallFilter
    SystemCallLog TasksAccounting TasksMax TemporaryFileSystem TimerSlackNSec UnsetEnvironment
    """,
    )
)
# What the role settles, and by which variable.
INSTEAD = {
    "DynamicUser": "nothing: supervisord must be root",
    "Environment": "supervisord_unit_environment",
    "EnvironmentFile": "supervisord_unit_environment",
    "Group": "nothing: supervisord must be root",
    "LimitNOFILE": "supervisord_unit_limit_nofile",
    "TimeoutStopSec": "supervisord_unit_timeout_stop_sec",
    "UMask": "supervisord_unit_umask",
    "User": "nothing: supervisord must be root",
    "WorkingDirectory": "supervisor_directory",
}


def problems(variable: str, sandbox: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in sandbox.items():
        if name in INSTEAD:
            yield f"{variable} has {name!r}, which the role settles: set {INSTEAD[name]}"
        elif name not in KNOWN:
            near = difflib.get_close_matches(str(name), KNOWN, n=1)
            hint = f"did you mean {near[0]}?" if near else "such as PrivateTmp; a command or a file is none"
            yield f"{variable} has {name!r}: it must be a directive of systemd.exec(5) that confines, {hint}"
        elif not isinstance(value, (str, int, float)):
            yield f"{variable}.{name} is {value!r}: it must be text, as in a unit"
        elif _shapes.has_control(str(value)) or str(value).endswith("\\"):
            shown = f"{variable}.{name} is {str(value)!r}"
            yield f"{shown}: it may hold no line break or other control character, and no '\\' last"
