//! The engines of this machine: where they may be, when each is asked, what each said last.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde::Deserialize as _;
use serde_json::Value;

use super::listing::{Inspected, Listed, ListedPort, right};
use super::question::{Asker, Failure};
use super::{Container, Containers, Heard, Published, places};

/// How long an engine that again did not answer as one is left alone.
const BACK_OFF: Duration = Duration::from_secs(60);

/// How long a Podman whose service systemd has not started is left alone: a question starts it.
const SLEEP: Duration = Duration::from_secs(600);

/// How long an engine is left alone after the first question without an answer: a service that the
/// question has started needs a moment until it can answer one, and so does any on a busy machine.
const WAKING: Duration = Duration::from_secs(3);

/// How many containers one round inspects at most; the rest waits for the next.
const INSPECTIONS: usize = 16;

/// The container engines of this machine. Asking them takes as long as they like, up to a quarter
/// of a second for all together, so it is done by whoever has that time.
#[derive(Debug)]
pub struct Engines {
    engines: Vec<Engine>,
}

#[derive(Debug)]
struct Engine {
    socket: PathBuf,
    /// Not before that.
    next: Option<Instant>,
    containers: Vec<Arc<Container>>,
    published: Vec<Published>,
    answered: Option<Instant>,
    /// The ports of stopped containers that were inspected; they never change.
    inspected: HashMap<String, Vec<ListedPort>>,
    /// Where the compose projects really are, by what compose was told.
    places: HashMap<PathBuf, PathBuf>,
    complained: bool,
}

impl Engines {
    /// The engines at [`sockets`].
    pub fn from_env() -> Self {
        Self::at(sockets())
    }

    /// The engines at these sockets.
    pub fn at(sockets: Vec<PathBuf>) -> Self {
        let engine = |socket| Engine {
            socket,
            next: None,
            containers: Vec::new(),
            published: Vec::new(),
            answered: None,
            inspected: HashMap::new(),
            places: HashMap::new(),
            complained: false,
        };
        Self { engines: sockets.into_iter().map(engine).collect() }
    }

    /// Asks every engine that may be asked now, side by side: one that hangs takes no time from the
    /// others.
    pub fn ask(&mut self) -> Containers {
        let begin = Instant::now();
        let mut asked: Vec<PathBuf> = Vec::new();
        thread::scope(|scope| {
            for engine in &mut self.engines {
                // The same socket has several names where one is a link: podman-docker makes one.
                let real = engine.socket.canonicalize();
                let Some(real) = real.ok().filter(|real| !asked.contains(real)) else {
                    engine.forget();
                    continue;
                };
                asked.push(real.clone());
                let ask = move || engine.ask(&real, Instant::now());
                let thread = thread::Builder::new().name("engine".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, ask) {
                    tracing::warn!("no container engine is asked: {error}");
                }
            }
        });
        let published = self.engines.iter().enumerate().flat_map(|(engine, its)| {
            its.published.iter().map(move |one| Published { engine, ..one.clone() })
        });
        let heard = self
            .engines
            .iter()
            .map(|engine| engine.answered.map(|at| Heard { at, is_last: at >= begin }));
        let containers = self.engines.iter().flat_map(|engine| &engine.containers);
        Containers::new(containers.cloned(), published, heard.collect(), Instant::now())
    }
}

/// The sockets where an engine may be: those that the environment names, for Docker's and Podman's
/// own commands, then where Docker and Podman are, of the machine and of this user.
pub fn sockets() -> Vec<PathBuf> {
    let named = ["DOCKER_HOST", "CONTAINER_HOST"].map(std::env::var_os);
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map_or_else(|| PathBuf::from(format!("/run/user/{}", geteuid().as_raw())), PathBuf::from);
    places(named.iter().flatten().map(OsString::as_os_str), Some(&runtime))
}

fn places<'a>(named: impl IntoIterator<Item = &'a OsStr>, runtime: Option<&Path>) -> Vec<PathBuf> {
    let named = named.into_iter().filter_map(OsStr::to_str);
    let named = named.filter_map(|host| host.strip_prefix("unix://")).map(PathBuf::from);
    let system = ["/var/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from);
    let user = ["podman/podman.sock", "docker.sock"];
    let user = runtime.into_iter().flat_map(|runtime| user.map(|socket| runtime.join(socket)));
    named.chain(system).chain(user).filter(|path| path.is_absolute()).collect()
}

impl Engine {
    fn ask(&mut self, socket: &Path, now: Instant) {
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        let asleep = sleeping_unit(socket);
        // A Docker that sleeps has no running containers, and would start some.
        if asleep == Some(Unit::Docker) {
            self.forget();
            return;
        }
        self.next = asleep.map(|_| now + SLEEP);
        match self.list(socket) {
            Ok(()) => {
                self.answered = Some(Instant::now());
                self.complained = false;
            }
            Err(Failure::Absent) => self.forget(),
            // What it said last may still be so.
            Err(Failure::Bad(reason)) => {
                let again = std::mem::replace(&mut self.complained, true);
                self.next = Some(now + if again { BACK_OFF } else { WAKING });
                if !again {
                    let reason = crate::text::printable(&reason).into_owned();
                    tracing::warn!("no container engine answers at {}: {reason}", socket.display());
                }
            }
        }
    }

    fn forget(&mut self) {
        self.containers.clear();
        self.published.clear();
    }

    fn list(&mut self, socket: &Path) -> Result<(), Failure> {
        let Ok(metadata) = std::fs::metadata(socket) else { return Err(Failure::Absent) };
        let asker = Asker::new(socket);
        let answer = asker.get::<Vec<Value>>("/containers/json?all=true")?;
        let engine = if answer.server.starts_with("Libpod") { "podman" } else { "docker" };
        let mut listed: Vec<Listed> = right(answer.value);
        self.inspect(&mut listed, &asker);
        self.places = places::real(listed.iter().filter_map(Listed::working_dir), &self.places);
        self.forget();
        for one in listed {
            let mut container = one.container(engine, metadata.uid());
            if let Some(directory) = &mut container.working_dir
                && let Some(real) = self.places.get(directory)
            {
                directory.clone_from(real);
            }
            let container = Arc::new(container);
            self.published.extend(one.published(&container));
            self.containers.push(container);
        }
        Ok(())
    }

    /// Finds out the ports that stopped containers will publish where the list is silent on them.
    fn inspect(&mut self, containers: &mut [Listed], asker: &Asker) {
        let is_silent = |it: &Listed| !it.is_running() && it.has_plain_id() && it.ports.is_empty();
        let mut left = INSPECTIONS;
        let mut seen = HashMap::new();
        for container in containers.iter_mut().filter(|it| is_silent(it)) {
            let ports = match self.inspected.remove(&container.id) {
                Some(ports) => ports,
                None if left == 0 => continue,
                None => {
                    left -= 1;
                    let path = format!("/containers/{}/json", container.id);
                    let Ok(answer) = asker.get::<Value>(&path) else {
                        // Removed meanwhile, or the engine is slow: then no more of it now.
                        left = 0;
                        continue;
                    };
                    let inspected = Inspected::deserialize(answer.value);
                    inspected.map(|it| it.ports()).unwrap_or_default()
                }
            };
            seen.insert(container.id.clone(), ports.clone());
            container.ports = ports;
        }
        // Who has been removed is forgotten.
        self.inspected = seen;
    }
}

/// Which engine systemd would start for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Docker,
    Podman,
}

/// The engine behind a socket that systemd serves while that engine is not running. The control
/// groups show it (systemd makes one for each running unit, and removes it), with no question to
/// anybody that could start something.
fn sleeping_unit(socket: &Path) -> Option<Unit> {
    let (unit, name) = match socket.file_name()?.to_str()? {
        "podman.sock" => (Unit::Podman, "podman"),
        "docker.sock" => (Unit::Docker, "docker"),
        _ => return None,
    };
    let uid = geteuid().as_raw();
    let manager = format!("user.slice/user-{uid}.slice/user@{uid}.service");
    let slices = if socket.starts_with("/run/user") {
        vec![format!("{manager}/app.slice"), manager]
    } else if socket.starts_with("/run") {
        vec!["system.slice".to_owned()]
    } else {
        return None;
    };
    is_asleep(unit, Path::new("/sys/fs/cgroup"), &slices, name).then_some(unit)
}

/// Podman sleeps unless its service is there: on most machines it is started for each question.
/// Docker is a service that stays, under other names too, and sleeps only behind its socket unit.
fn is_asleep(unit: Unit, root: &Path, slices: &[String], name: &str) -> bool {
    // The unified hierarchy, alone or beside the old ones.
    let trees = [root.to_owned(), root.join("unified"), root.join("systemd")];
    let has = |suffix: &str| {
        let unit = format!("{name}.{suffix}");
        trees.iter().any(|tree| slices.iter().any(|slice| tree.join(slice).join(&unit).exists()))
    };
    !has("service") && (unit == Unit::Podman || has("socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unix_sockets_are_asked() {
        let runtime = Path::new("/run/user/7");
        let all = places([OsStr::new("unix:///mine.sock")], Some(runtime));
        let expected = [
            "/mine.sock",
            "/var/run/docker.sock",
            "/run/podman/podman.sock",
            "/run/user/7/podman/podman.sock",
            "/run/user/7/docker.sock",
        ];
        assert_eq!(all, expected.map(PathBuf::from));
        for other in ["tcp://127.0.0.1:2375", "ssh://host", "unix://relative", ""] {
            assert_eq!(places([OsStr::new(other)], None).len(), 2, "{other}");
        }
    }

    #[test]
    fn an_engine_sleeps_while_its_service_is_not_there() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let slices = ["system.slice".to_owned()];
        let slice = root.path().join("unified/system.slice");
        let asleep = || {
            [(Unit::Docker, "docker"), (Unit::Podman, "podman")]
                .map(|(unit, name)| is_asleep(unit, root.path(), &slices, name))
        };
        let make = |unit: &str| std::fs::create_dir_all(slice.join(unit)).expect("there is room");
        assert_eq!(asleep(), [false, true], "a Docker by another name runs");
        make("docker.socket");
        make("podman.socket");
        assert_eq!(asleep(), [true, true]);
        make("docker.service");
        make("podman.service");
        assert_eq!(asleep(), [false, false]);
    }

    #[test]
    fn engines_that_hang_are_waited_for_together() {
        use std::os::unix::net::UnixListener;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sockets: Vec<_> =
            (0..6).map(|number| directory.path().join(format!("{number}.sock"))).collect();
        // They accept nothing: connections wait in their backlogs.
        let _silent: Vec<_> = sockets
            .iter()
            .map(|socket| UnixListener::bind(socket).expect("a new socket"))
            .collect();
        let begin = Instant::now();
        Engines::at(sockets).ask();
        let time = begin.elapsed();
        // One after the other they take six quarters of a second.
        assert!(time < Duration::from_secs(1), "{time:?}");
    }

    #[test]
    fn a_compose_project_is_known_by_its_real_path() {
        use std::io::{Read, Write};
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().canonicalize().expect("it is there");
        std::fs::create_dir(root.join("shop")).expect("there is room");
        std::os::unix::fs::symlink("shop", root.join("link")).expect("there is room");
        let socket = root.join("engine.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a new socket");
        let container = |id: &str, port: u16, place: &str| {
            serde_json::json!({
                "Id": id, "State": "running",
                "Labels": { "com.docker.compose.project.working_dir": root.join(place) },
                "Ports": [{ "PrivatePort": 1, "PublicPort": port }],
            })
        };
        let all = [container("a", 4000, "link"), container("b", 4001, "gone")];
        let all = serde_json::to_string(&all).expect("it is JSON");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{all}", all.len());
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            let _request = client.read(&mut [0; 1024]).expect("it asks");
            client.write_all(answer.as_bytes()).expect("it reads");
        });
        let containers = Engines::at(vec![socket]).ask();
        server.join().expect("no panic");
        let shop = root.join("shop");
        let lies_in_shop = |port| {
            let published = containers.publishing(port, crate::api::Protocol::Tcp);
            published.expect("it said so").lies_in(shop.to_str())
        };
        assert_eq!([4000, 4001].map(lies_in_shop), [Some(true), Some(false)]);
    }

    #[test]
    fn an_engine_that_answers_nonsense_is_left_alone_and_keeps_its_last_word() {
        use std::io::{Read, Write};
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("engine.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a new socket");
        let good = r#"[7,{"State":null},{"Id":"ab","Names":["/db"],"State":"running",
            "Ports":[{"PrivatePort":1,"PublicPort":4000,"Type":"tcp"}]}]"#;
        let good = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{good}", good.len());
        let server = thread::spawn(move || {
            for answer in [good.as_str(), "nonsense\r\n\r\n"] {
                let (mut client, _) = listener.accept().expect("a client");
                // A socket that is closed unread is reset.
                let _request = client.read(&mut [0; 1024]).expect("it asks");
                client.write_all(answer.as_bytes()).expect("it reads");
            }
            listener.set_nonblocking(true).expect("a socket");
            listener.accept().is_err()
        });
        let mut engines = Engines::at(vec![socket.clone(), socket]);
        for _ in 0..3 {
            let containers = engines.ask();
            let db = containers.publishing(4000, crate::api::Protocol::Tcp).expect("it said so");
            assert_eq!((db.container.name.as_str(), db.container_port), ("db", 1));
        }
        assert!(server.join().expect("no panic"), "the third time nobody asks");
    }
}
