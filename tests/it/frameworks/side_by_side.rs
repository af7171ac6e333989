//! Two servers of one framework at once, each in a project of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use super::install::Set;
use crate::support::{Home, PATH, Running, eventually, port_of};

/// How long a framework may take for its first page on a machine that does much else.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A framework, and a project of it. In texts and words, `NAME` is the project's own name and `SET`
/// the directory where the framework is installed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framework {
    /// Where it comes from.
    pub(super) set: Set,
    /// The project's files.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// What is typed behind `styxy run` in the first project, and in the second.
    pub(super) commands: [&'static str; 2],
    /// The page that has the project's name in it.
    pub(super) page: &'static str,
    /// The service type that both are.
    pub(super) service_type: &'static str,
}

/// Starts both and checks that each serves its own pages on its own port.
pub(super) fn check(framework: &Framework) {
    let Some(set) = framework.set.directory() else { return };
    let home = Home::new();
    let (first, last) = home.dev_range();
    let mut configuration =
        OpenOptions::new().append(true).open(home.config_file()).expect("a file");
    for service_type in ["docs", "storybook"] {
        // Other tests must not get the same ports meanwhile.
        let table = format!("[service.{service_type}]\npreferred_ports = []\n");
        writeln!(configuration, "{table}port_range = [{first}, {last}]").expect("a file");
    }
    let _daemon = home.daemon();
    let one = Server::start(&home, framework, &set, "alpha", framework.commands[0]);
    let other = Server::start(&home, framework, &set, "omega", framework.commands[1]);
    for server in [&one, &other] {
        server.serves(framework.page);
        let allocation = home.allocation_of(server.process.pid());
        assert_eq!(allocation["service_type"], framework.service_type, "{allocation:#}");
        home.becomes(&allocation["lock_id"], "listening");
    }
    assert_ne!(one.port, other.port);
}

/// One of the two.
struct Server {
    process: Running,
    port: u16,
    name: &'static str,
    log: PathBuf,
    /// Beside the framework, so that it finds itself.
    _project: TempDir,
}

impl Server {
    fn start(
        home: &Home,
        framework: &Framework,
        set: &Path,
        name: &'static str,
        line: &str,
    ) -> Self {
        let project = tempfile::Builder::new().prefix("project-").tempdir_in(set);
        let project = project.expect("a directory");
        let filled = |text: &str| {
            text.replace("NAME", name).replace("SET", set.to_str().expect("a path in UTF-8"))
        };
        // A git worktree of its own, so that it is no part of Styxy's.
        let git = (".git/HEAD", "ref: refs/heads/main\n");
        for (file, text) in framework.files.iter().chain([&git]) {
            let file = project.path().join(filled(file));
            fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
            fs::write(file, filled(text)).expect("a file");
        }
        let log = home.path(&format!("{name}.log"));
        let file = File::create(&log).expect("a file");
        let mut command = home.styxy_command(&["run", "--"]);
        command.args(filled(line).split(' ')).current_dir(project.path());
        // As in a venv that is active.
        command.env("PATH", format!("{}/venv/bin:{PATH}", set.display()));
        for telemetry in ["ASTRO_TELEMETRY_DISABLED", "NEXT_TELEMETRY_DISABLED"] {
            command.env(telemetry, "1");
        }
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a file")).stderr(file);
        let process = Running::spawn(&mut command);
        let port = port_of(&home.allocation_of(process.pid()));
        Self { process, port, name, log, _project: project }
    }

    /// Waits for its page.
    fn serves(&self, page: &str) {
        eventually(PATIENCE, || {
            let seen = get(self.port, page).unwrap_or_else(|error| error.to_string());
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            if seen.contains(self.name) { Ok(()) } else { Err(format!("{seen}\n{}", log())) }
        });
    }
}

/// The whole answer, of whichever address of localhost somebody listens on.
pub(super) fn get(port: u16, page: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("localhost", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
