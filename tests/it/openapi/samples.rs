//! A value of every wire type, to compare with its schema.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use styxy::api;

/// A wire type as JSON: once with everything in it, once with nothing that may be left out.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) is_request: bool,
    pub(crate) full: Value,
    pub(crate) bare: Value,
    pub(crate) read: fn(Value) -> Result<(), serde_json::Error>,
}

fn sample<T: Serialize + DeserializeOwned>(build: impl Fn(bool) -> T) -> Sample {
    let name = std::any::type_name::<T>().rsplit("::").next().expect("a type has a name");
    let write = |full| serde_json::to_value(build(full)).expect("wire types are JSON");
    Sample {
        name,
        is_request: name.ends_with("Request") || name == "AssignService",
        full: write(true),
        bare: write(false),
        read: |value| serde_json::from_value::<T>(value).map(drop),
    }
}

pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = request_samples();
    samples.extend(answer_samples());
    samples.extend(part_samples());
    samples
}

const LOCK_ID: &str = "6f1c9e0a-52bb-4d0e-9d9f-0c5a1f6b7e21";
const TIME: &str = "2025-01-17T19:34:12.000Z";

fn word(full: bool) -> Option<String> {
    full.then(|| "shop".to_owned())
}

fn metadata() -> Map<String, Value> {
    Map::from_iter([("editor".to_owned(), json!({ "windows": [1, 2] }))])
}

fn request_samples() -> Vec<Sample> {
    vec![
        sample(allocate_request),
        sample(|full| api::BatchRequest { requests: vec![allocate_request(full)] }),
        sample(|full| api::RenewRequest { lease_seconds: full.then_some(60) }),
        sample(|full| api::RegisterRequest {
            instance_id: word(full),
            working_directory: word(full),
            process_id: full.then_some(812),
            metadata: full.then(metadata),
        }),
        sample(|_| api::HeartbeatRequest { instance_id: "shop".to_owned() }),
        sample(|full| api::CleanupRequest {
            force: full,
            project_path: word(full),
            instance_id: word(full),
            dry_run: full,
        }),
        sample(|full| api::AssignRequest {
            project_path: "/home/user/shop".to_owned(),
            services: vec![assign_service(full)],
            avoid_ports: if full { vec![5173] } else { Vec::new() },
        }),
        sample(assign_service),
    ]
}

fn allocate_request(full: bool) -> api::AllocateRequest {
    api::AllocateRequest {
        service_type: "dev".to_owned(),
        service_name: word(full),
        preferred_port: full.then_some(8000),
        exact: full,
        avoid_ports: if full { vec![5173] } else { Vec::new() },
        process_id: full.then_some(812),
        process_start_time: full.then_some(1_737_142_052),
        implicit_owner: full,
        pid_namespace: full.then_some(4_026_531_836),
        instance_id: word(full),
        project_path: word(full),
        lease_seconds: full.then_some(60),
        protocol: api::Protocol::Both,
        if_running: api::IfRunning::Refuse,
        lock_id: full.then(|| LOCK_ID.to_owned()),
        previous_process_id: full.then_some(1),
        dry_run: full,
    }
}

fn assign_service(full: bool) -> api::AssignService {
    api::AssignService {
        service_type: "dev".to_owned(),
        service_name: "web".to_owned(),
        preferred_port: full.then_some(5173),
    }
}

fn answer_samples() -> Vec<Sample> {
    let message = || "One sentence.".to_owned();
    vec![
        sample(allocate_response),
        sample(|full| api::BatchResponse {
            success: true,
            allocations: vec![allocate_response(full)],
        }),
        sample(|_| api::RenewResponse {
            success: true,
            lock_id: LOCK_ID.to_owned(),
            expires_at: TIME.to_owned(),
        }),
        sample(|_| api::ReleaseResponse {
            success: true,
            port: 8000,
            lock_id: LOCK_ID.to_owned(),
            message: message(),
        }),
        sample(|full| api::CheckResponse {
            port: 8000,
            available: !full,
            allocated_to: full.then(|| allocation(full)),
            system_usage: full.then(|| system_usage(full)),
        }),
        sample(|_| reasoned(3000)),
        sample(|_| api::SuggestResponse {
            service_type: "dev".to_owned(),
            suggestions: vec![3000, 8000],
            count: 2,
            reasons: vec![reasoned(3000), reasoned(8000)],
            message: message(),
        }),
        sample(|_| api::RegisterResponse {
            success: true,
            instance_id: "shop".to_owned(),
            heartbeat_seconds: 30,
            message: message(),
        }),
        sample(|_| api::HeartbeatResponse {
            success: true,
            instance_id: "shop".to_owned(),
            last_heartbeat: TIME.to_owned(),
        }),
        sample(|full| api::InstancesResponse { instances: vec![instance(full)] }),
        sample(|full| api::RemoveInstanceResponse {
            success: true,
            instance_id: "shop".to_owned(),
            released: vec![allocation(full)],
            message: message(),
        }),
        sample(status),
        sample(|full| api::CleanupResponse {
            success: true,
            cleaned: 1,
            released: vec![allocation(full)],
            message: message(),
        }),
        sample(|full| api::AssignmentsResponse { assignments: vec![assignment(full)] }),
        sample(|full| api::AssignResponse {
            success: true,
            assignments: vec![assignment(full)],
            moved: vec![moved(full)],
        }),
        sample(|full| api::AllocationsResponse { allocations: vec![allocation(full)] }),
        sample(|full| api::ScanResponse {
            scan_range: "1-65535".to_owned(),
            ports_in_use: vec![port_in_use(full)],
        }),
        sample(|_| styxy::error::Error::UnknownLock(LOCK_ID.to_owned()).to_response()),
    ]
}

fn allocate_response(full: bool) -> api::AllocateResponse {
    api::AllocateResponse {
        success: true,
        port: 8000,
        lock_id: LOCK_ID.to_owned(),
        message: "One sentence.".to_owned(),
        reused: full,
        allocation: allocation(full),
        also_running: vec![allocation(full)],
        notes: vec!["One sentence.".to_owned()],
    }
}

fn status(full: bool) -> api::StatusResponse {
    api::StatusResponse {
        status: "running".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 812,
        uptime: 1.5,
        allocations: 3,
        instances: 1,
        started_at: TIME.to_owned(),
        listening: vec!["127.0.0.1:9876".to_owned()],
        state_dir: "/home/user/.local/state/styxy".to_owned(),
        socket_activated: full,
        problems: vec!["One sentence.".to_owned()],
    }
}

fn part_samples() -> Vec<Sample> {
    vec![
        sample(|_| api::Protocol::Udp),
        sample(|_| api::IfRunning::Another),
        sample(|_| api::AllocationState::Conflict),
        sample(allocation),
        sample(listener),
        sample(system_usage),
        sample(process),
        sample(container),
        sample(instance),
        sample(assignment),
        sample(moved),
        sample(port_in_use),
        sample(|full| api::Released {
            allocation: allocation(full),
            reason: "owner_died".to_owned(),
        }),
        sample(|_| api::InstanceLost { instance_id: "shop".to_owned() }),
        sample(|_| api::Lagged { missed: 3 }),
    ]
}

fn port_in_use(full: bool) -> api::PortInUse {
    api::PortInUse {
        port: 8000,
        allocated_to: full.then(|| allocation(full)),
        system_usage: full.then(|| system_usage(full)),
    }
}

fn reasoned(port: u16) -> api::Reasoned {
    api::Reasoned { port, reason: "preferred for dev".to_owned() }
}

fn allocation(full: bool) -> api::Allocation {
    api::Allocation {
        port: 8000,
        protocol: api::Protocol::Tcp,
        service_type: "dev".to_owned(),
        service_name: word(full),
        process_id: full.then_some(812),
        process_start_time: full.then_some(1_737_142_052),
        instance_id: word(full),
        project_path: word(full),
        allocated_at: TIME.to_owned(),
        lock_id: LOCK_ID.to_owned(),
        expires_at: full.then(|| TIME.to_owned()),
        implicit_owner: full,
        state: api::AllocationState::Listening,
        listener: full.then(|| listener(full)),
        elsewhere: full.then(|| listener(full)),
    }
}

fn listener(full: bool) -> api::Listener {
    api::Listener {
        pid: full.then_some(812),
        name: word(full),
        local_address: "[::]:8000".to_owned(),
    }
}

fn system_usage(full: bool) -> api::SystemUsage {
    api::SystemUsage {
        protocol: api::Protocol::Tcp,
        local_address: "127.0.0.1:8000".to_owned(),
        uid: 1000,
        process: full.then(|| process(full)),
        container: full.then(|| container(full)),
    }
}

fn process(full: bool) -> api::ProcessInfo {
    api::ProcessInfo {
        pid: 812,
        name: "vite".to_owned(),
        command: word(full),
        cwd: word(full),
        project_path: word(full),
    }
}

fn container(_full: bool) -> api::ContainerInfo {
    api::ContainerInfo {
        engine: "podman".to_owned(),
        id: "4c01db0b339c".to_owned(),
        name: "shop-db".to_owned(),
        container_port: 5432,
    }
}

fn instance(full: bool) -> api::Instance {
    api::Instance {
        instance_id: "shop".to_owned(),
        working_directory: word(full),
        process_id: full.then_some(812),
        registered_at: TIME.to_owned(),
        last_heartbeat: TIME.to_owned(),
        active_allocations: vec![LOCK_ID.to_owned()],
        metadata: metadata(),
    }
}

fn assignment(full: bool) -> api::Assignment {
    api::Assignment {
        port: 8000,
        project_path: "/home/user/shop".to_owned(),
        service_type: "dev".to_owned(),
        service_name: word(full),
        slot: full.then_some(0),
        last_used: TIME.to_owned(),
    }
}

fn moved(full: bool) -> api::Moved {
    api::Moved {
        project_path: "/home/user/shop".to_owned(),
        service_type: "dev".to_owned(),
        service_name: word(full),
        from: 8000,
        to: 8001,
    }
}
