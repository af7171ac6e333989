//! Another program where Styxy should be: it is named, and not believed.

use std::process::{Command, Stdio};

use crate::support::{Home, Running, as_nobody, finish, is_root, owner, skip, tcp_socket};

/// An HTTP server that answers every request with `{}` and says that it is `argv[2]`.
const IMPOSTOR: &str = r"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get('Content-Length') or 0)
        self.rfile.read(length)
        body = json.dumps({'success': True, 'status': 'running', 'version': '0.1.0', 'pid': 1,
                           'port': 1, 'lock_id': '0e0b8c9e-3f0a-4a52-9d2c-6a3a4a1f8e11',
                           'allocations': []}).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = do_DELETE = do_PUT = do_HEAD = answer
    def version_string(self):
        return sys.argv[2]
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler)
print('ready', flush=True)
server.serve_forever()
";

/// The arguments of `python3` for an impostor on the daemon's port.
fn impostor(home: &Home, server: &str) -> Command {
    let mut command = home.command("python3");
    command.args(["-c", IMPOSTOR, &home.daemon_port().to_string(), server]);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[track_caller]
fn started(mut command: Command) -> Running {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = Running::spawn(&mut command);
    assert_eq!(server.line(), "ready");
    server
}

#[test]
fn a_program_on_the_daemons_port_is_named_where_the_client_was_sent_there() {
    let home = Home::new();
    let other = started(impostor(&home, "karma"));
    let url = format!("http://127.0.0.1:{}", home.daemon_port());
    for (args, exit) in
        [(&["list"][..], 69), (&["daemon", "status"], 1), (&["allocate", "-s", "dev"], 69)]
    {
        let mut command = home.styxy_command(args);
        let output = finish(command.env("STYXY_URL", &url).env("STYXY_AUTOSTART", "0")).exits(exit);
        assert_eq!(output.stdout, "", "{}", output.whole());
        let output = output.complains(&other.pid().to_string()).complains("python3");
        output.complains(&home.daemon_port().to_string());
    }
}

#[test]
fn a_daemon_beside_a_foreign_program_serves_the_unix_socket_alone_and_says_so() {
    let home = Home::new();
    let other = started(impostor(&home, "karma"));

    let port = home.styxy(&["allocate", "-s", "dev"]).ok().port();

    let (first, last) = home.dev_range();
    assert!((first..=last).contains(&port), "{port} is the impostor's answer");
    let status = home.styxy(&["daemon", "status"]).ok();
    let said = format!("{}{}", status.stdout, status.stderr);
    assert!(said.contains(&home.daemon_port().to_string()), "{}", status.whole());
    assert!(said.contains(&other.pid().to_string()), "{}", status.whole());
    let json = home.styxy(&["daemon", "status", "--json"]).ok().json();
    let listening = json["listening"].as_array().expect("a list");
    assert_eq!(listening.len(), 1, "{json:#}");
    assert!(listening[0].as_str().is_some_and(|one| one.starts_with("unix:")), "{json:#}");
}

#[test]
fn a_program_that_says_it_is_styxy_but_is_another_users_is_not_believed() {
    if !is_root() {
        return skip("being another user needs root");
    }
    let home = Home::new();
    let _other = started(as_nobody(&impostor(&home, "styxy/0.1.0")));
    let url = format!("http://127.0.0.1:{}", home.daemon_port());
    for args in [&["allocate", "-s", "dev"][..], &["list"], &["get", "web"]] {
        let mut command = home.styxy_command(args);
        let output = finish(command.env("STYXY_URL", &url).env("STYXY_AUTOSTART", "0")).exits(69);
        assert_eq!(output.stdout, "", "{}", output.whole());
    }

    let port = home.styxy(&["allocate", "-s", "dev"]).ok().port();
    let (first, last) = home.dev_range();
    assert!((first..=last).contains(&port), "{port} is the impostor's answer");
}

#[test]
fn a_server_header_of_another_program_is_not_believed_even_of_this_user() {
    let home = Home::new();
    let _other = started(impostor(&home, "BaseHTTP/0.6 styxy"));
    let mut command = home.styxy_command(&["list"]);
    let url = format!("http://127.0.0.1:{}", home.daemon_port());
    finish(command.env("STYXY_URL", &url).env("STYXY_AUTOSTART", "0")).exits(69);
}

#[test]
fn run_still_starts_its_command_beside_a_foreign_program() {
    let home = Home::new();
    let _other = started(impostor(&home, "karma"));
    let mut command = home.styxy_command(&["run", "-s", "dev", "--", "sh", "-c", "echo $PORT"]);
    let url = format!("http://127.0.0.1:{}", home.daemon_port());
    let output = finish(command.env("STYXY_URL", url).env("STYXY_AUTOSTART", "0")).ok();
    let (first, last) = home.dev_range();
    assert!((first..=last).contains(&output.port()), "{}", output.whole());
}

#[test]
fn a_silent_program_on_the_daemons_port_does_not_hang_the_client() {
    let home = Home::new();
    let silent = format!("127.0.0.1:{}", home.daemon_port());
    let _silent = tcp_socket(&silent, false, true);
    let owner = owner();
    // finish() has its own patience.
    let output = home.styxy(&["allocate", "-s", "dev", "--pid", &owner.pid().to_string()]).ok();
    let (first, last) = home.dev_range();
    assert!((first..=last).contains(&output.port()), "{}", output.whole());
}
