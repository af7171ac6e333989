//! A daemon that dies, hangs or is restarted is replaced, and nothing is lost.

use rustix::time::{ClockId, clock_gettime};

use super::machine::Machine;
use crate::support::{PATIENCE, eventually};

#[test]
fn after_kill_9_the_next_client_finds_every_allocation_of_a_living_owner() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    let ids = ada.allocate_for_owners(5);
    let killed = ada.service_pid();
    ada.signal_service("KILL");
    assert_eq!(ada.lock_ids(), ids);
    let pid = ada.ask(&["daemon", "status"])["pid"].as_u64();
    assert_ne!(pid, Some(killed.into()));
    eventually(PATIENCE, || match ada.styxy_processes() {
        one if one.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn a_daemon_that_hangs_is_replaced_by_the_watchdog() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    // The same, only sooner.
    ada.edit("styxy.service", "[Service]\nWatchdogSec=1\n");
    ada.enable();
    let ids = ada.allocate_for_owners(3);
    let hung = ada.service_pid();
    // Longer than the watchdog, while it works: it is let live.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(ada.service_pid(), hung);
    ada.signal_service("STOP");
    ada.becomes("styxy.service", "NRestarts", "1");
    assert_eq!(ada.lock_ids(), ids);
    assert_ne!(ada.service_pid(), hung);
}

#[test]
fn a_restart_under_sixteen_clients_loses_no_request_and_no_allocation() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    // Every client is at work from before the first restart until behind the last one, and is
    // answered between any two.
    let script = "for client in $(seq 16); do (
            n=0
            until test -e restarted && test $n -ge 10; do
                styxy allocate -s dev --lease 10m || echo \"failed: $?\"
                n=$((n + 1))
            done
        ) >client.$client 2>>errors & done
        answered() { cat client.* | wc --lines; }
        until test $(find . -name 'client.*' -size +0 | wc --lines) -eq 16; do sleep 0.01; done
        for n in $(seq 5); do
            before=$(answered)
            systemctl --user restart styxy.service 2>&1 || echo \"no restart: $?\"
            systemctl --user show --value --property=MainPID styxy.service
            until test $(answered) -gt $before; do sleep 0.01; done
        done >restarts
        touch restarted; wait; cat client.*";
    ada.wake();
    let first = ada.service_pid();
    let said = ada.shell(script).ok();
    let read = |name: &str| std::fs::read_to_string(ada.home(name)).expect("a file");
    let (errors, restarts) = (read("errors"), read("restarts"));
    let mut pids: Vec<u32> = restarts.lines().filter_map(|line| line.parse().ok()).collect();
    pids.extend([first, 0]);
    pids.sort_unstable();
    pids.dedup();
    assert_eq!((restarts.lines().count(), pids.len()), (5, 7), "another process each: {restarts}");

    let mut ports: Vec<&str> = said.text().lines().collect();
    assert!(ports.iter().all(|port| port.parse::<u16>().is_ok()), "{ports:?}\n{errors}");
    let count = ports.len();
    assert!(count >= 160, "{count}: {errors}");
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), count, "no port was handed out twice");
    assert_eq!(ada.lock_ids().len(), count);
    assert_eq!(ada.show("styxy.service", "Result"), "success");
}

#[test]
fn it_ends_within_five_seconds_whatever_its_clients_do() {
    let Some(machine) = Machine::start() else { return };
    let ada = machine.ada();
    ada.enable();
    let ids = ada.allocate_for_owners(1);
    // A request that never ends, a body that never comes, silence, and an idle connection.
    let clients = "import socket, time
def client(*parts):
    s = socket.create_connection(('127.0.0.1', 9876))
    for part in parts: s.sendall(part)
    return s
head = b'POST /allocate HTTP/1.1\\r\\nHost: localhost:9876\\r\\nContent-Type: application/json\\r\\n'
kept = [client(b'GET /sta'), client(head + b'Content-Length: 99\\r\\n\\r\\n{'), client(),
        client(head + b'Transfer-Encoding: chunked\\r\\n\\r\\n1\\r\\n{\\r\\n')]
idle = client(b'GET /status HTTP/1.1\\r\\nHost: localhost:9876\\r\\n\\r\\n')
idle.recv(9)
print('ready', flush=True)
time.sleep(60)
";
    let mut command = ada.command("python3");
    command.args(["-c", clients]).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("nsenter(1)");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert_eq!(line, "ready\n");

    for signal in ["TERM", "INT"] {
        let told = clock_gettime(ClockId::Monotonic);
        ada.signal_service(signal);
        ada.becomes("styxy.service", "ActiveState", "inactive");
        // On the same clock, in microseconds.
        let ended = ada.show("styxy.service", "ExecMainExitTimestampMonotonic");
        let took = ended.parse::<i64>().expect("a number") - told.tv_sec * 1_000_000;
        assert!(took < 5_000_000 + told.tv_nsec / 1_000, "{signal}: {took} µs");
        assert_eq!(ada.show("styxy.service", "ExecMainStatus"), "0", "{signal}");
        assert_eq!(ada.show("styxy.service", "ExecMainCode"), "1", "{signal}: it exited");
        assert_eq!(ada.lock_ids(), ids);
    }
    drop(child.kill());
    drop(child.wait());
}
