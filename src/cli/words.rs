//! Allocations and holders in words.

use super::output::{View, long, printable};
use crate::api::{Allocation, Listener, SystemUsage};
use crate::coordinator::{place_of, user_of_port};

/// What an allocation is for: `dev/web`, or `dev` for an unnamed one.
pub(super) fn service(service_type: &str, service_name: Option<&str>) -> String {
    match service_name {
        Some(name) => format!("{}/{}", printable(service_type), printable(name)),
        None => printable(service_type).into_owned(),
    }
}

/// What this allocation is for.
pub(super) fn service_of(allocation: &Allocation) -> String {
    service(&allocation.service_type, allocation.service_name.as_deref())
}

/// Who holds a port, where, since when and as what: `vite (pid 812) in ~/src/shop, allocated 14
/// minutes ago as dev/web`. Nothing is guessed: what cannot be seen is said to be so.
pub(super) fn holder(
    view: &View,
    allocated_to: Option<&Allocation>,
    usage: Option<&SystemUsage>,
) -> Option<String> {
    let mut words = match (usage, allocated_to) {
        (Some(usage), _) => user_of_port(usage),
        (None, Some(allocation)) => keeper(view, allocation),
        (None, None) => return None,
    };
    let directory = allocated_to.and_then(|allocation| allocation.project_path.as_deref());
    let directory = directory.or_else(|| place_of(usage?));
    if let Some(directory) = directory {
        words.push_str(" in ");
        words.push_str(&view.path(directory));
    }
    let Some(allocation) = allocated_to else { return Some(words) };
    let age = view.since(&allocation.allocated_at);
    let age = match age {
        Some(age) if age.as_secs() == 0 => "just now".to_owned(),
        Some(age) => long(age) + " ago",
        None => "at an unknown time".to_owned(),
    };
    Some(format!("{words}, allocated {age} as {}", service_of(allocation)))
}

/// Where an allocation's program listens instead of on its port.
pub(super) fn elsewhere(allocation: &Allocation) -> Option<String> {
    let Listener { pid, name, local_address } = allocation.elsewhere.as_ref()?;
    let name = name.as_deref().map_or("its program".into(), printable);
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let port = local_address.rsplit(':').next().unwrap_or_default();
    Some(format!("{name}{pid} listens on port {} instead of {}", printable(port), allocation.port))
}

/// What keeps an allocation alive: its listener, its owner, its instance or its lease.
pub(super) fn keeper(view: &View, allocation: &Allocation) -> String {
    if let Some(listener) = &allocation.listener {
        return match (&listener.name, listener.pid) {
            (Some(name), Some(pid)) => format!("{} (pid {pid})", printable(name)),
            (Some(name), None) => printable(name).into_owned(),
            (None, Some(pid)) => format!("pid {pid}"),
            (None, None) => "a listener that cannot be seen".to_owned(),
        };
    }
    if let Some(pid) = allocation.process_id {
        return format!("pid {pid}");
    }
    if let Some(instance) = &allocation.instance_id {
        return format!("instance {}", printable(instance));
    }
    match allocation.expires_at.as_deref().and_then(|end| view.until(end)) {
        Some(left) => format!("a lease for another {}", long(left)),
        None => "nobody".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::{AllocationState, ContainerInfo, ProcessInfo, Protocol};

    pub(in crate::cli) fn view() -> View {
        let now = humantime::parse_rfc3339("2026-01-17T18:40:52.000Z").expect("a time");
        View { home: Some("/home/ada".to_owned()), now }
    }

    pub(in crate::cli) fn web() -> Allocation {
        Allocation {
            port: 5173,
            protocol: Protocol::Tcp,
            service_type: "dev".to_owned(),
            service_name: Some("web".to_owned()),
            process_id: Some(800),
            process_start_time: Some(1_768_674_000),
            instance_id: None,
            project_path: Some("/home/ada/src/shop".to_owned()),
            allocated_at: "2026-01-17T18:26:52.000Z".to_owned(),
            lock_id: "5d0bbf0c-3e0e-4f0e-9d3c-111111111111".to_owned(),
            expires_at: None,
            implicit_owner: false,
            state: AllocationState::Listening,
            listener: Some(Listener {
                pid: Some(812),
                name: Some("vite".to_owned()),
                local_address: "[::]:5173".to_owned(),
            }),
            elsewhere: None,
        }
    }

    pub(in crate::cli) fn usage() -> SystemUsage {
        SystemUsage {
            protocol: Protocol::Tcp,
            local_address: "127.0.0.1:9000".to_owned(),
            uid: u32::MAX - 7,
            process: None,
            container: None,
        }
    }

    #[test]
    fn a_holder_is_named_with_place_age_and_service() {
        assert_eq!(
            holder(&view(), Some(&web()), None).as_deref(),
            Some("vite (pid 812) in ~/src/shop, allocated 14 minutes ago as dev/web")
        );
        assert_eq!(holder(&view(), None, None), None);
    }

    #[test]
    fn a_stranger_is_named_as_far_as_it_can_be_seen() {
        let hidden = usage();
        assert_eq!(
            holder(&view(), None, Some(&hidden)).as_deref(),
            Some("a process of another user (uid 4294967288)")
        );
        let process = ProcessInfo {
            pid: 7,
            name: "nc\x1b".to_owned(),
            command: None,
            cwd: Some("/srv/app/web".to_owned()),
            project_path: None,
        };
        let seen = SystemUsage { process: Some(process.clone()), ..usage() };
        assert_eq!(
            holder(&view(), None, Some(&seen)).as_deref(),
            Some("nc\\u{1b} (pid 7) in /srv/app/web")
        );
        let process = ProcessInfo { project_path: Some("/srv".to_owned()), ..process };
        let seen = SystemUsage { process: Some(process), ..usage() };
        assert_eq!(
            holder(&view(), None, Some(&seen)).as_deref(),
            Some("nc\\u{1b} (pid 7) in /srv")
        );
        let root = SystemUsage { uid: 0, ..usage() };
        let roots = "a process of another user (root, uid 0)";
        if !rustix::process::geteuid().is_root() {
            assert_eq!(holder(&view(), None, Some(&root)).as_deref(), Some(roots));
        }
        let container = ContainerInfo {
            engine: "docker".to_owned(),
            id: "f00".to_owned(),
            name: "shop-db-1".to_owned(),
            container_port: 5432,
        };
        let published = SystemUsage { container: Some(container), ..seen };
        assert_eq!(
            holder(&view(), None, Some(&published)).as_deref(),
            Some("container shop-db-1 (docker) in /srv")
        );
    }

    #[test]
    fn what_keeps_an_allocation_is_its_strongest_holder() {
        let owned = Allocation { listener: None, ..web() };
        assert_eq!(keeper(&view(), &owned), "pid 800");
        let of_instance =
            Allocation { process_id: None, instance_id: Some("editor_a".to_owned()), ..owned };
        assert_eq!(keeper(&view(), &of_instance), "instance editor_a");
        let leased = Allocation {
            instance_id: None,
            expires_at: Some("2026-01-17T18:49:00.000Z".to_owned()),
            ..of_instance
        };
        assert_eq!(keeper(&view(), &leased), "a lease for another 8 minutes");
    }
}
