//! What the machine has to offer: kernel interfaces, container engines, clock, ports.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access};

use super::Finding;
use crate::api::Protocol;
use crate::config::{Config, ephemeral_ports};
use crate::detect::{self, process, sockets};

/// 2026-01-01: this program did not exist before.
const YOUNGEST: Duration = Duration::from_secs(1_767_225_600);

/// How far two clocks may be apart that mean the same: whole seconds are compared.
const TOLERANCE: u64 = 2;

/// How far in the future a file may have been written, on a disk with a clock of its own.
const FILE_TOLERANCE: Duration = Duration::from_secs(60);

/// What needs neither configuration nor places.
pub(super) fn check() -> Vec<Finding> {
    vec![pidfd(), netlink(sockets::netlink_answers()), ipv6(), containers()]
}

fn pidfd() -> Finding {
    let own = process::identify(std::process::id());
    if own.is_ok_and(|own| own.pidfd.is_some()) {
        return Finding::ok("pidfd", "the end of a process is seen at once");
    }
    Finding::warn(
        "pidfd",
        "pidfd_open(2) is refused, so the end of a process is seen within reap_interval",
        "a kernel from 5.3 on, and a sandbox that allows pidfd_open",
    )
}

fn netlink(answers: io::Result<()>) -> Finding {
    let Err(refused) = answers else {
        return Finding::ok("netlink", "the kernel lists its sockets (sock_diag)");
    };
    let next = "modprobe -a inet_diag tcp_diag udp_diag, or allow AF_NETLINK in this sandbox";
    match sockets::on_port(1, Protocol::Both) {
        Ok(_) => Finding::warn(
            "netlink",
            format!("sock_diag does not answer ({refused}), and /proc/net is slower"),
            next,
        ),
        Err(error) => Finding::fail("netlink", format!("listeners can't be seen: {error}"), next),
    }
}

fn ipv6() -> Finding {
    match TcpListener::bind(("::1", 0)) {
        Ok(_) => Finding::ok("ipv6", "ports are tried on IPv4 and IPv6"),
        // Nothing is missing where no program can listen on it either.
        Err(error) => Finding::ok("ipv6", format!("ports are tried on IPv4 alone ({error})")),
    }
}

/// Which container engines there are, and whether they may be asked. None is asked: a question
/// would start those that wait behind a socket of systemd.
fn containers() -> Finding {
    let present: Vec<PathBuf> = engines().into_iter().filter(|socket| socket.exists()).collect();
    if present.is_empty() {
        return Finding::ok("containers", "no container engine has a socket here");
    }
    let names = |sockets: &[PathBuf]| {
        sockets.iter().map(|one| one.display().to_string()).collect::<Vec<_>>().join(" and ")
    };
    // connect(2) needs the permission to write.
    let closed: Vec<PathBuf> = present
        .iter()
        .filter(|socket| access(socket.as_path(), Access::WRITE_OK).is_err())
        .cloned()
        .collect();
    if closed.is_empty() {
        return Finding::ok("containers", format!("{} can be asked", names(&present)));
    }
    Finding::warn(
        "containers",
        format!("{} lets you not in, so its containers stay unnamed", names(&closed)),
        format!("ls -l {} shows the group that may", closed[0].display()),
    )
}

/// The sockets that Styxy looks at.
fn engines() -> Vec<PathBuf> {
    let mut all = detect::containers::sockets();
    let mut seen = Vec::new();
    // `/var/run` is `/run`, so one socket may have two names.
    all.retain(|path| {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let is_new = !seen.contains(&real);
        seen.push(real);
        is_new
    });
    all
}

/// Whether wall clock and time since boot go together: owners are told apart by their start times.
/// `written` is when the journal was written last.
pub(super) fn clock(written: Option<SystemTime>) -> Finding {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    judge_clock(SystemTime::now(), boot, process::unix_seconds(0), written)
}

/// `kernel_boot` is `btime` of /proc/stat, `own_boot` what the clocks say, in Unix seconds.
fn judge_clock(
    now: SystemTime,
    kernel_boot: Option<u64>,
    own_boot: u64,
    written: Option<SystemTime>,
) -> Finding {
    let time = humantime::format_rfc3339_seconds(now);
    let set = "timedatectl set-ntp true";
    if now.duration_since(UNIX_EPOCH).is_ok_and(|since| since < YOUNGEST) {
        return Finding::warn("clock", format!("it is {time}, says the clock"), set);
    }
    if let Some(boot) = kernel_boot
        && boot.abs_diff(own_boot) > TOLERANCE
    {
        let apart = boot.abs_diff(own_boot);
        let message = format!("wall clock and time since boot are {apart} s apart");
        let next = "leave the time namespace, or go without process_start_time in requests";
        return Finding::warn("clock", message, next);
    }
    if written.is_some_and(|written| written > now + FILE_TOLERANCE) {
        let message = format!("it is {time}, and the journal was written later: it was set back");
        return Finding::warn("clock", message, set);
    }
    Finding::ok("clock", format!("it is {time}, and wall clock and time since boot agree"))
}

/// Whether the kernel gives ports of a service's range to outgoing connections.
pub(super) fn port_ranges(config: &Config) -> Finding {
    judge_ranges(config, ephemeral_ports().as_ref())
}

fn judge_ranges(config: &Config, ephemeral: Option<&RangeInclusive<u16>>) -> Finding {
    let Some(ephemeral) = ephemeral else {
        return Finding::ok("port-ranges", "the kernel does not say its ephemeral ports");
    };
    let services = config.services.iter().filter_map(|(name, service)| {
        service.port_range.as_ref().map(|range| (name.as_str(), range))
    });
    let overlapping: Vec<String> = services
        .chain([("overflow", &config.daemon.overflow)])
        .filter(|(_, range)| range.start() <= ephemeral.end() && ephemeral.start() <= range.end())
        .map(|(name, range)| format!("{name} {}-{}", range.start(), range.end()))
        .collect();
    let (first, last) = (ephemeral.start(), ephemeral.end());
    if overlapping.is_empty() {
        let message = format!("none is in the kernel's ephemeral ports {first}-{last}");
        return Finding::ok("port-ranges", message);
    }
    let message = format!(
        "outgoing connections take ports {first}-{last}, which overlap {}",
        overlapping.join(", ")
    );
    let next = "other ranges in the configuration, or sysctl net.ipv4.ip_local_port_range";
    Finding::warn("port-ranges", message, next)
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn clocks_that_do_not_go_together_are_told() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let judge = |kernel, own, written| judge_clock(now, kernel, own, written).status;
        assert_eq!(judge(Some(1_799_000_000), 1_799_000_001, Some(now)), Status::Ok);
        assert_eq!(judge(None, 1_799_000_001, None), Status::Ok);
        assert_eq!(judge(Some(1_799_000_000), 1_799_003_600, None), Status::Warn);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(judge(None, 0, Some(later)), Status::Warn);
        let unset = UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(judge_clock(unset, None, 0, None).status, Status::Warn);
    }

    #[test]
    fn ranges_within_the_ephemeral_ports_are_named() {
        let config = Config::built_in();
        let judge = |range| judge_ranges(&config, Some(&range));
        assert_eq!(judge(32768..=60999).status, Status::Ok);
        let found = judge(8050..=60999);
        assert_eq!(found.status, Status::Warn);
        for name in ["dev 8000-8099", "overflow 20000-29999"] {
            assert!(found.message.contains(name), "{found:?}");
        }
        assert!(!found.message.contains("storybook"), "{found:?}");
        assert_eq!(judge_ranges(&config, None).status, Status::Ok);
    }

    #[test]
    fn without_netlink_the_slower_way_does() {
        assert_eq!(netlink(Ok(())).status, Status::Ok);
        let refused = netlink(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.status, Status::Warn);
        assert!(refused.suggestion.is_some_and(|next| next.contains("AF_NETLINK")));
    }
}
