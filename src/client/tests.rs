//! The client against servers that behave as no daemon should.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use tempfile::TempDir;

use super::discover::{Endpoint, Lookup};
use super::link::Link;
use super::{Autostart, Client, Failure};
use crate::api::{AllocateRequest, ErrorResponse};
use crate::config::Config;
use crate::coordinator::{Answer, Call};
use crate::paths::Paths;
use crate::testing::skip;

/// A server whose every connection answers its requests with the texts of one script, in order,
/// and then closes. It ends after the last script, and hands out the requests that it got.
fn serve<S: Read + Write + Send + 'static>(
    mut accept: impl FnMut() -> io::Result<S> + Send + 'static,
    scripts: Vec<Vec<String>>,
) -> JoinHandle<io::Result<Vec<String>>> {
    thread::spawn(move || {
        let mut requests = Vec::new();
        for script in scripts {
            let mut stream = BufReader::new(accept()?);
            for text in script {
                requests.push(read_request(&mut stream)?);
                // A client that has heard enough closes.
                let _ = stream.get_mut().write_all(text.as_bytes());
            }
        }
        Ok(requests)
    })
}

fn read_request(stream: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    let mut length = 0;
    while stream.read_line(&mut text)? > 0 && !text.ends_with("\r\n\r\n") {
        let line = text.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(text + &String::from_utf8_lossy(&body))
}

/// An answer as a daemon gives it.
fn styxy(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nServer: styxy/0\r\nContent-Length: {length}\r\n\r\n{body}")
}

struct Place {
    dir: TempDir,
    lookup: Lookup,
}

impl Place {
    fn new() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let lookup = Lookup::Named(Endpoint::Unix(dir.path().join("styxy.sock")));
        Ok(Self { dir, lookup })
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("styxy.sock")
    }

    fn serve(&self, scripts: &[&[String]]) -> io::Result<JoinHandle<io::Result<Vec<String>>>> {
        let listener = UnixListener::bind(self.socket())?;
        let scripts = scripts.iter().map(|script| script.to_vec()).collect();
        Ok(serve(move || listener.accept().map(|(stream, _)| stream), scripts))
    }

    fn connect(&self) -> Result<Client, Failure> {
        connect(self.dir.path(), self.lookup.clone())
    }
}

fn connect(dir: &Path, lookup: Lookup) -> Result<Client, Failure> {
    let paths = Paths {
        state_dir: dir.to_owned(),
        socket: dir.join("styxy.sock"),
        config_files: Vec::new(),
    };
    Client::with_lookup(lookup, &paths, &Config::built_in(), Autostart::Never)
}

fn allocate() -> Call {
    Call::Allocate(AllocateRequest { service_type: "dev".to_owned(), ..AllocateRequest::default() })
}

fn requests(server: JoinHandle<io::Result<Vec<String>>>) -> io::Result<Vec<String>> {
    server.join().expect("the server does not panic")
}

/// The holder of an `Unreachable` failure.
fn holder<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
    match result {
        Err(Failure::Unreachable { holder: Some(holder), .. }) => holder,
        other => panic!("{other:?}"),
    }
}

fn lock_id(request: &str) -> String {
    let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
    let request: AllocateRequest = serde_json::from_str(body).expect("an allocate request");
    request.lock_id.expect("a lock id")
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[test]
fn the_calls_of_a_command_share_one_connection() -> Outcome {
    let place = Place::new()?;
    let server = place.serve(&[&[styxy("201 Created", "{}"), styxy("200 OK", "[]")]])?;
    let mut client = place.connect()?;
    assert_eq!(client.endpoint(), format!("unix:{}", place.socket().display()));

    let Answer { body, created } = client.call(&allocate())?;
    assert_eq!((body.as_str(), created), ("{}", true));
    let Answer { body, created } = client.call(&Call::Allocations)?;
    assert_eq!((body.as_str(), created), ("[]", false));

    let requests = requests(server)?;
    assert!(requests[0].starts_with("POST /allocate HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains("\r\ncontent-type: application/json\r\n"), "{}", requests[0]);
    assert!(requests[1].starts_with("GET /allocations HTTP/1.1\r\n"), "{}", requests[1]);
    assert!(requests.iter().all(|request| request.contains("\r\nhost: localhost\r\n")));
    Ok(())
}

#[test]
fn a_request_without_an_answer_is_asked_again_with_the_same_lock_id() -> Outcome {
    let leaving = r#"{"success":false,"error":"x","code":"shutting_down","context":{}}"#;
    for first in [String::new(), styxy("503 Service Unavailable", leaving)] {
        let place = Place::new()?;
        let server = place.serve(&[&[first], &[styxy("201 Created", "{}")]])?;
        assert!(place.connect()?.call(&allocate())?.created);
        let requests = requests(server)?;
        assert_eq!(lock_id(&requests[0]), lock_id(&requests[1]));
        uuid::Uuid::parse_str(&lock_id(&requests[0]))?;
    }
    Ok(())
}

#[test]
fn a_daemon_that_never_answers_is_asked_twice_and_no_more() -> Outcome {
    let place = Place::new()?;
    let server = place.serve(&[&[String::new()], &[String::new()]])?;
    let failure = place.connect()?.call(&allocate()).expect_err("no answer");
    assert!(matches!(&failure, Failure::Unreachable { .. }), "{failure:?}");
    assert!(failure.to_string().ends_with("closed without an answer"), "{failure}");
    assert_eq!(requests(server)?.len(), 2);
    Ok(())
}

#[test]
fn a_connection_that_was_closed_while_idle_is_opened_again() -> Outcome {
    let place = Place::new()?;
    let ok = || styxy("200 OK", "{}");
    let server = place.serve(&[&[ok()], &[ok()]])?;
    let mut client = place.connect()?;
    client.call(&Call::Status)?;
    client.call(&Call::Status)?;
    assert_eq!(requests(server)?.len(), 2);
    Ok(())
}

#[test]
fn a_refusal_is_the_daemons_own() -> Outcome {
    let place = Place::new()?;
    let body = r#"{"success":false,"error":"no","code":"foreign_namespace","context":{"a":1}}"#;
    let _server = place.serve(&[&[styxy("409 Conflict", body)]])?;
    let failure = place.connect()?.call(&allocate()).expect_err("refused");
    assert!(failure.is_own_trouble());
    let Failure::Refused(response) = failure else { panic!("{failure:?}") };
    let ErrorResponse { code, context, .. } = *response;
    assert_eq!((code.as_str(), context["a"].as_u64()), ("foreign_namespace", Some(1)));
    Ok(())
}

#[test]
fn whoever_does_not_speak_as_styxy_is_named() -> Outcome {
    let own = format!("pid {}", std::process::id());
    let other = styxy("200 OK", "{}");
    for text in [
        other.replace("styxy/0", "nginx"),
        other.replace("Server: styxy/0\r\n", ""),
        other.replace("styxy/0", "notstyxy/0"),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        other.replace("200 OK", "302 Found\r\nLocation: http://localhost/").replace("styxy/0", ""),
    ] {
        let place = Place::new()?;
        let _server = place.serve(&[&[text]])?;
        let holder = holder(place.connect()?.call(&allocate()));
        assert!(holder.starts_with("another program ("), "{holder}");
        assert!(holder.contains(&own), "{holder}");
    }
    Ok(())
}

#[test]
fn an_endless_answer_is_not_read_to_its_end() -> Outcome {
    let place = Place::new()?;
    let listener = UnixListener::bind(place.socket())?;
    let server = thread::spawn(move || -> io::Result<()> {
        let mut stream = BufReader::new(listener.accept()?.0);
        read_request(&mut stream)?;
        let head = "HTTP/1.1 200 OK\r\nServer: styxy/0\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.get_mut().write_all(head.as_bytes())?;
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while stream.get_mut().write_all(chunk.as_bytes()).is_ok() {}
        Ok(())
    });
    let failure = place.connect()?.call(&Call::Allocations).expect_err("too much");
    assert!(failure.to_string().contains("answers with more than 67108864 bytes"), "{failure}");
    server.join().expect("the server does not panic")?;
    Ok(())
}

#[test]
fn another_program_on_the_usual_port_is_named_before_anything_is_asked_of_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let listening = listener.try_clone()?;
    let karma = styxy("200 OK", "{}").replace("styxy/0", "karma");
    let server = serve(move || listener.accept().map(|(stream, _)| stream), vec![vec![karma]]);

    let places = [Endpoint::Unix(dir.path().join("styxy.sock")), Endpoint::Tcp(address)];
    let holder = holder(connect(dir.path(), Lookup::Usual(places)));
    assert!(holder.contains(&format!("pid {}) listens on {address}", std::process::id())));
    let requests = requests(server)?;
    assert!(requests[0].starts_with("GET /status "), "{}", requests[0]);
    drop(listening);
    Ok(())
}

#[test]
fn the_tcp_address_serves_where_there_is_no_socket() -> Outcome {
    let dir = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let ok = || styxy("200 OK", "{}");
    let scripts = vec![vec![ok(), ok()]];
    let server = serve(move || listener.accept().map(|(stream, _)| stream), scripts);

    let places = [Endpoint::Unix(dir.path().join("styxy.sock")), Endpoint::Tcp(address)];
    let mut client = connect(dir.path(), Lookup::Usual(places))?;
    assert_eq!(client.endpoint(), format!("http://{address}"));
    client.call(&Call::Allocations)?;
    let host = format!("\r\nhost: localhost:{}\r\n", address.port());
    assert!(requests(server)?.iter().all(|request| request.contains(&host)));
    Ok(())
}

/// A server of the user "nobody", that answers just as a daemon does.
struct Nobody(Child);

impl Nobody {
    /// `bind` is the Python expression of its socket. Answers what it says first, too.
    fn serve(bind: &str) -> io::Result<(Self, String)> {
        let script = format!(
            "import socket\ns = {bind}\ns.listen()\nprint(s.getsockname())\nimport sys; sys.stdout.flush()\nsys.stdin.read()"
        );
        let mut child = Command::new("setpriv")
            .args(["--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line)?;
        Ok((Self(child), line))
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        // It ends when its standard input does; the test has said what there was to say.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_daemon_of_another_user_is_not_ours() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        skip("only root can be another user");
        return Ok(());
    }
    let (nobody, said) = Nobody::serve("socket.create_server(('127.0.0.1', 0))")?;
    let port = said.trim().trim_end_matches(')').rsplit(' ').next().ok_or("a port")?.parse()?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let absence = Link::find(&Lookup::Named(Endpoint::Tcp(address))).expect_err("not ours");
    let stranger = absence.stranger.ok_or("it is somebody's")?;
    assert!(stranger.starts_with("a program of another user"), "{stranger}");
    assert!(stranger.ends_with(&format!("listens on {address}")), "{stranger}");
    assert!(stranger.contains(&format!("pid {}", nobody.0.id())), "root sees who: {stranger}");
    drop(nobody);

    let dir = tempfile::tempdir()?;
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let path = dir.path().join("styxy.sock");
    let bind = format!("socket.socket(socket.AF_UNIX); s.bind('{}')", path.display());
    let (_nobody, _) = Nobody::serve(&bind)?;
    let absence = Link::find(&Lookup::Named(Endpoint::Unix(path))).expect_err("not ours");
    let stranger = absence.stranger.ok_or("it is somebody's")?;
    assert!(stranger.starts_with("a program of another user (python3, pid "), "{stranger}");
    Ok(())
}
