//! Containers: what real engines publish is taken, named, and free again; an engine that hangs
//! delays nobody.
//!
//! Engines and daemon live in a network of the test's own, on sockets and folders of its own. The
//! image is busybox in a folder: nothing is downloaded.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Home, Output, PATIENCE, Request, Running, eventually, finish, has_program, in_network_of,
    in_new_network, is_root, session_of, skip,
};

/// A network of its own, with a Styxy daemon and one container engine in it.
struct World {
    home: Home,
    /// The process that keeps the network.
    network: Running,
    engine: Option<Running>,
    program: &'static str,
    styxy: Option<Running>,
}

impl World {
    /// Starts the engine `program`; `None`, and said so, where that can't be.
    fn new(program: &'static str, needs: &[&str]) -> Option<Self> {
        if !is_root() {
            skip("only root may start a container engine");
            return None;
        }
        let missing = needs.iter().chain([&program]).find(|program| !has_program(program));
        if let Some(missing) = missing {
            skip(&format!("{missing} is missing"));
            return None;
        }
        let home = Home::new();
        fs::create_dir_all(home.path("run/podman")).expect("there is room");
        let mut keeper = home.command("sleep");
        keeper.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
        let network = Running::spawn(&mut in_new_network(&keeper));
        let world = Self { home, network, engine: None, program, styxy: None };
        eventually(PATIENCE, || {
            let links = finish(&mut world.inside(&["ip", "-br", "link"]));
            if links.stdout.contains("LOOPBACK,UP") { Ok(()) } else { Err(links.whole()) }
        });
        world.make_image();
        Some(world)
    }

    /// A command in that network.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = self.home.command("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.network.pid())).arg("--").args(words);
        command.stdin(Stdio::null());
        command
    }

    fn path(&self, name: &str) -> String {
        self.home.path(name).display().to_string()
    }

    /// The engine's socket, where Styxy looks for it.
    fn socket(&self) -> PathBuf {
        let name = if self.program == "podman" { "podman/podman.sock" } else { "docker.sock" };
        self.home.path("run").join(name)
    }

    /// Starts the engine's service, and waits until it answers.
    fn start_engine(&mut self) {
        let socket = format!("unix://{}", self.socket().display());
        let mut engine = if self.program == "podman" {
            self.engine_command(&["system", "service", "--time=0", &socket])
        } else {
            let (data, exec) = (self.path("engine/data"), self.path("engine/exec"));
            let pid = self.path("engine/pid");
            let mut command = self.inside(&["dockerd", "-H", &socket, "--data-root", &data]);
            command.args(["--exec-root", &exec, "-p", &pid, "--userland-proxy=false"]);
            command
        };
        fs::create_dir_all(self.home.path("engine")).expect("there is room");
        let log = fs::File::options().create(true).append(true).open(self.path("engine/log"));
        let log = log.expect("a log file");
        // Not in the project: it would be its own there.
        engine.current_dir("/").stdout(Stdio::null()).stderr(log);
        self.engine = Some(Running::spawn(&mut engine));
        eventually(PATIENCE * 2, || {
            let output = self.docker(&["ps"]);
            if output.status.success() {
                return Ok(());
            }
            let log = fs::read_to_string(self.path("engine/log")).unwrap_or_default();
            Err(format!("{}\n{log}", output.whole()))
        });
    }

    /// Podman, told where everything of it is.
    fn engine_command(&self, words: &[&str]) -> Command {
        let mut command = self.inside(&["podman", "--runtime", "runc", "--storage-driver", "vfs"]);
        for (option, folder) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.args([option, &self.path(&format!("engine/{folder}"))]);
        }
        command.args(words);
        command
    }

    /// The engine's own command line.
    fn docker(&self, words: &[&str]) -> Output {
        if self.program == "podman" {
            return finish(self.engine_command(words).current_dir("/"));
        }
        let socket = format!("unix://{}", self.socket().display());
        finish(self.inside(&["docker", "-H", &socket]).args(words))
    }

    /// A folder with busybox.
    fn make_image(&self) {
        let bin = self.home.path("image/bin");
        fs::create_dir_all(&bin).expect("there is room");
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|it| fs::metadata(it).is_ok());
        fs::copy(busybox.expect("busybox is there"), bin.join("busybox")).expect("there is room");
        for applet in ["sh", "sleep", "nc"] {
            symlink("busybox", bin.join(applet)).expect("there is room");
        }
        let (image, tar) = (self.path("image"), self.path("image.tar"));
        finish(&mut self.inside(&["tar", "-C", &image, "-cf", &tar, "."])).ok();
    }

    fn styxy(&self, words: &[&str]) -> Output {
        let styxy = self.home.styxy_command(&[]);
        let program = styxy.get_program().to_str().expect("a plain path").to_owned();
        finish(self.inside(&[&program]).args(words).env("STYXY_AUTOSTART", "0"))
    }

    fn start_styxy(&mut self) {
        let styxy = self.home.styxy_command(&[]);
        let program = styxy.get_program().to_str().expect("a plain path").to_owned();
        let log = fs::File::create(self.path("daemon.log")).expect("a log file");
        let mut command = self.inside(&[&program, "daemon", "run"]);
        self.styxy = Some(Running::spawn(command.stdout(Stdio::null()).stderr(log)));
        self.until("a daemon", &["daemon", "status", "--json"], |_| true);
    }

    /// Does `work` in that network.
    fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_network_of(self.network.pid(), work)
    }

    /// The times of [`allocations`] of a new daemon whose engine gets that signal once it has told
    /// of a container on `port`, and is to be asked again.
    fn allocations_beside(&mut self, port: u16, signal: Option<Signal>) -> Vec<Duration> {
        if let Some(styxy) = &mut self.styxy {
            styxy.kill();
        }
        self.start_styxy();
        let check = ["check", &port.to_string(), "--json"];
        self.until("its name", &check, |it| it["system_usage"]["container"]["name"] == "db");
        // An answer is good for a second: the end of a lease tells that it is old.
        let body = json!({ "service_type": "api", "lease_seconds": 2 });
        self.in_network(|| {
            let lock_id = self.home.post("/allocate", body).expect(201)["lock_id"].clone();
            self.home.ends_within(PATIENCE, &lock_id);
        });
        let engine = self.engine.as_ref().expect("it was started");
        if let Some(signal) = signal {
            engine.signal(signal);
        }
        let times = self.in_network(|| allocations(&self.home));
        engine.signal(Signal::CONT);
        times
    }

    /// Waits until `styxy WORDS` answers with JSON that `is_so`, and returns it.
    #[track_caller]
    fn until(&self, what: &str, words: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
        eventually(PATIENCE, || {
            let output = self.styxy(words);
            match serde_json::from_str(&output.stdout) {
                Ok(value) if is_so(&value) => Ok(value),
                _ => Err(format!("{what}: {}", output.whole())),
            }
        })
    }

    /// Starts a container that publishes `port`, with the label of a compose project in `project`.
    fn publish(&self, name: &str, port: u16, project: &str) {
        let publish = format!("{port}:80");
        let label = format!("com.docker.compose.project.working_dir={project}");
        self.start(name, &["--label", &label, "-p", &publish, "image", "/bin/sleep", "600"]);
    }

    /// Starts a container.
    fn start(&self, name: &str, what: &[&str]) {
        // Podman asks for more than a restricted machine allows.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        self.docker(&[&["run", "-d", "--name", name], &limits[..], what].concat()).ok();
    }

    /// Waits until the allocation on `port` is in that state, by the container of that name.
    #[track_caller]
    fn becomes(&self, port: u16, state: &str, name: &str) -> Value {
        let has = |list: &Value| {
            let mut all = list["allocations"].as_array().into_iter().flatten();
            let is_so = |it: &&Value| it["state"] == state && it["listener"]["name"] == name;
            all.find(|it| it["port"] == port && is_so(it)).cloned()
        };
        let list = self.until(state, &["list", "--json"], |list| has(list).is_some());
        has(&list).expect("it was there")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(engine) = &mut self.engine
            && engine.try_wait().is_none()
        {
            engine.signal(Signal::CONT);
        }
        for name in ["db", "web", "later", "near"] {
            let _missing = self.docker(&["rm", "-f", name]);
        }
        if let Some(styxy) = &mut self.styxy {
            styxy.kill();
        }
        if let Some(engine) = &mut self.engine
            && engine.try_wait().is_none()
        {
            engine.signal(Signal::TERM);
            engine.wait();
        }
        // Docker leaves mounts behind, more of them when it was killed: nobody could remove what
        // they are on.
        for name in ["exec/netns/default", "data"] {
            let _absent = finish(Command::new("umount").arg(self.path(&format!("engine/{name}"))));
        }
    }
}

/// Whether what was said on the standard error names that container.
fn names(container: &str, output: &Output) -> Result<(), String> {
    let is_so = output.stderr.contains(&format!("container {container} "));
    is_so.then_some(()).ok_or_else(|| output.whole())
}

/// All that a published port is to Styxy, from its start to its end.
fn a_published_port_is_known(mut world: World) {
    world.start_engine();
    let image = world.path("image.tar");
    world.docker(&["import", &image, "image"]).ok();
    let (port, _) = world.home.dev_range();
    let number = port.to_string();
    world.publish("db", port, "/elsewhere");
    world.start_styxy();

    let named = |checked: &Value| checked["system_usage"]["container"]["name"] == "db";
    let checked = world.until("its name", &["check", &number, "--json"], named);
    assert_eq!(checked["available"], false, "{checked:#}");
    let container = &checked["system_usage"]["container"];
    assert_eq!(container["engine"], world.program, "{checked:#}");
    assert_eq!(container["container_port"], 80, "{checked:#}");
    // No allocation waits for an engine that is late: its answer names the container the next time.
    let wish = ["allocate", "-s", "dev", "-p", &number];
    eventually(PATIENCE, || {
        let other = world.styxy(&[&wish[..], &["--dry-run"]].concat()).ok();
        assert_ne!(other.port(), port);
        names("db", &other)
    });
    eventually(PATIENCE, || {
        names("db", &world.styxy(&[&wish[..], &["--exact"]].concat()).exits(1))
    });
    let scan = world.styxy(&["scan", &number, "--json"]).ok().json();
    let [entry] = &scan["ports_in_use"].as_array().expect("a list")[..] else { panic!("{scan:#}") };
    assert_eq!(entry["system_usage"]["container"], *container, "{scan:#}");

    // One in the network of the machine publishes nothing: its process listens itself.
    let near = world.home.spare_port(0).to_string();
    world.start("near", &["--network", "host", "image", "/bin/nc", "-l", "-p", &near]);
    let named = |checked: &Value| checked["system_usage"]["container"]["name"] == "near";
    let checked = world.until("its name", &["check", &near, "--json"], named);
    let usage = &checked["system_usage"];
    assert_eq!(usage["container"]["engine"], world.program, "{checked:#}");
    assert_eq!(usage["process"]["name"], "nc", "{checked:#}");
    assert_eq!(usage["process"]["project_path"], Value::Null, "{checked:#}");
    world.docker(&["rm", "-f", "near"]).ok();

    // Stopped, it will want its port again: only who asks for that number gets it.
    world.docker(&["stop", "-t", "0", "db"]).ok();
    world.until("free", &["check", &number, "--json"], |checked| checked["available"] == true);
    let pick = world.styxy(&["allocate", "-s", "dev", "--dry-run"]).ok().port();
    assert_ne!(pick, port, "a stopped container's port is avoided");
    let wish = world.styxy(&["allocate", "-s", "dev", "-p", &number, "--dry-run"]).ok();
    assert_eq!(wish.port(), port, "but not when it is asked for");
    world.docker(&["rm", "-f", "db"]).ok();

    // A service of this project serves the port that was allocated for it, and holds it.
    let project = world.home.work().display().to_string();
    let web = world.styxy(&["allocate", "-s", "dev", "-n", "web"]).ok().port();
    world.publish("web", web, &project);
    let allocation = world.becomes(web, "listening", "web");
    assert_eq!(allocation["expires_at"], Value::Null, "it holds: {allocation:#}");
    world.docker(&["rm", "-f", "web"]).ok();
    world.until("its end", &["list", "--json"], |list| {
        list["allocations"].as_array().is_some_and(Vec::is_empty)
    });

    // Another project's is a stranger.
    let mut other = world.inside(&["setsid", "sleep", "600"]);
    let other = Running::spawn(other.current_dir("/").stdout(Stdio::null()));
    // Only in its own session it has nothing to do with an engine that this test started.
    eventually(PATIENCE, || {
        let session = session_of(other.pid());
        if session == u64::from(other.pid()) { Ok(()) } else { Err(format!("it is {session}")) }
    });
    let owner = other.pid().to_string();
    let later = ["allocate", "-s", "dev", "-n", "later", "--pid", &owner];
    let later = world.styxy(&later).ok().port();
    world.publish("later", later, "/elsewhere");
    world.becomes(later, "conflict", "later");
    world.docker(&["rm", "-f", "later"]).ok();

    allocations_wait_for_no_engine(&mut world);
}

/// Well, hanging, or dead with its socket still there: a port is had as quickly as ever.
fn allocations_wait_for_no_engine(world: &mut World) {
    let port = world.home.spare_port(1);
    world.publish("db", port, "/elsewhere");
    delays_nobody("it is well", || world.allocations_beside(port, None));
    delays_nobody("it hangs", || world.allocations_beside(port, Some(Signal::STOP)));
    world.docker(&["rm", "-f", "db"]).ok();
    let engine = world.engine.as_mut().expect("it was started");
    engine.kill();
    assert!(world.socket().exists(), "it had no time to remove it");
    delays_nobody("it is dead", || world.in_network(|| allocations(&world.home)));
}

/// How long each of 100 allocations took with its release, every other one with a wish for a port
/// that another program has.
fn allocations(home: &Home) -> Vec<Duration> {
    let taken = TcpListener::bind(("127.0.0.1", home.spare_port(0))).expect("a free port");
    let taken = taken.local_addr().expect("it is bound").port();
    let mut connection = home.connect();
    let mut allocation = |wish: Option<u16>| {
        let body = json!({ "service_type": "dev", "preferred_port": wish });
        let allocate = Request::json("POST", "/allocate", &body);
        let begin = Instant::now();
        let answer = connection.send(&allocate).expect("an answer").expect(201);
        let path = format!("/allocate/{}", answer["lock_id"].as_str().expect("a lock id"));
        connection.send(&Request::new("DELETE", &path)).expect("an answer").expect(200);
        begin.elapsed()
    };
    [Some(taken), None].into_iter().cycle().take(100).map(&mut allocation).collect()
}

/// Sees that no allocation of a round waits for an engine, which may take a quarter of a second.
/// Other programs than these tests may have the processors: one round of five must do.
#[track_caller]
fn delays_nobody(state: &str, mut round: impl FnMut() -> Vec<Duration>) {
    let does = (0..5).any(|_| {
        let mut times = round();
        times.sort_unstable();
        let (most, slowest) = (times[89], times[99]);
        let quick = most < Duration::from_millis(25) && slowest < Duration::from_millis(125);
        if !quick {
            eprintln!("{state}: another round after {most:?} for 90 of 100, {slowest:?} for one");
        }
        quick
    });
    assert!(does, "{state}: an allocation waits");
}

#[test]
fn podman_publishes_a_port() {
    let netavark = "/usr/lib/podman/netavark";
    let needs = ["runc", netavark, "iptables", "busybox", "nsenter", "ip"];
    if let Some(world) = World::new("podman", &needs) {
        a_published_port_is_known(world);
    }
}

#[test]
fn docker_publishes_a_port() {
    let needs = ["dockerd", "containerd", "runc", "iptables", "busybox", "nsenter", "ip"];
    if let Some(world) = World::new("docker", &needs) {
        a_published_port_is_known(world);
    }
}

/// An engine that takes connections and answers each with `text`, again and again.
fn chatterer(listener: UnixListener, text: &'static [u8]) {
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut client = client;
                while client.write_all(text).is_ok() {}
            });
        }
    });
}

#[test]
fn an_engine_that_hangs_or_talks_nonsense_delays_nobody() {
    let home = Home::new();
    fs::create_dir_all(home.path("run/podman")).expect("there is room");
    let bind = |name: &str| UnixListener::bind(home.path(name)).expect("a new socket");
    // It accepts nothing: connections wait in its backlog, and no byte comes back.
    let silent = bind("run/docker.sock");
    chatterer(bind("run/podman/podman.sock"), b"HTTP/1.1 200 OK\r\n\r\n[[[[");
    chatterer(bind("named.sock"), b"no protocol at all\0");
    let mut daemon = home.styxy_command(&["daemon", "run"]);
    let named = format!("unix://{}", home.path("named.sock").display());
    daemon.env("DOCKER_HOST", named).stdin(Stdio::null()).stdout(Stdio::null());
    let mut running = None;
    delays_nobody("nobody makes sense", || {
        drop(running.take());
        let log = fs::File::create(home.path("daemon.log")).expect("a log file");
        running = Some(Running::spawn(daemon.stderr(log)));
        eventually(PATIENCE, || home.try_get("/status").map_err(|error| error.to_string()));
        // Three seconds after the first question each is to be asked again: the end of a lease
        // tells that they are over.
        let body = json!({ "service_type": "api", "lease_seconds": 4 });
        home.ends_within(PATIENCE, &home.post("/allocate", body).expect(201)["lock_id"]);
        allocations(&home)
    });
    // All three are asked, and complained of once.
    eventually(PATIENCE, || {
        let log = fs::read_to_string(home.path("daemon.log")).expect("a log");
        let all = ["docker.sock", "podman.sock", "named.sock"]
            .iter()
            .all(|name| log.matches(&format!("{name}: ")).count() == 1);
        if all { Ok(()) } else { Err(log) }
    });
    drop(silent);
}
