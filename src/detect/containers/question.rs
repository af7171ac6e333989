//! One question to a container engine: HTTP over its unix socket, bounded in time and size.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr};
use ureq::http::{StatusCode, header};
use ureq::unversioned::transport::{ConnectionDetails, Connector};
use ureq::{Agent, Error};

use crate::socket_http::{self, Deadline, NoResolver, SocketTransport};

/// How long all questions of one round to an engine may take together, connections included.
const PATIENCE: Duration = Duration::from_millis(250);

/// The longest answer that is read, in bytes: thousands of containers.
const MAX_ANSWER: u64 = 8 * 1024 * 1024;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody is there, or this user may not ask.
    Absent,
    /// Somebody is there, but is slow, or no engine.
    Bad(String),
}

/// An answer, and the engine's name for itself.
pub(super) struct Answer<T> {
    pub(super) value: T,
    /// The `Server` header: `Docker/20.10.24 (linux)`, `Libpod/4.3.1 (linux)`.
    pub(super) server: String,
}

/// Asks the engine at one socket, over one connection where it keeps it open.
#[derive(Debug)]
pub(super) struct Asker {
    agent: Agent,
    deadline: Instant,
}

impl Asker {
    /// For one round of questions: its time runs from now.
    pub(super) fn new(socket: &Path) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("styxy/", env!("CARGO_PKG_VERSION")))
            .accept("application/json")
            .build();
        let connector = UnixConnector(socket.to_owned());
        let agent = Agent::with_parts(config, connector, NoResolver);
        Self { agent, deadline: Instant::now() + PATIENCE }
    }

    /// `GET PATH` of the Docker Engine API. A Docker that is too new for version 1.40 says 400; the
    /// path without a version is always its latest.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        match self.get_at(&format!("/v1.40{path}"))? {
            Some(answer) => Ok(answer),
            None => self
                .get_at(path)?
                .ok_or_else(|| Failure::Bad(format!("400 Bad Request for {path}"))),
        }
    }

    fn get_at<T: DeserializeOwned>(&self, path: &str) -> Result<Option<Answer<T>>, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::Bad("it is too slow".to_owned()));
        }
        let request = self.agent.get(format!("http://localhost{path}"));
        let mut response = request.config().timeout_global(Some(left)).build().call()?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Ok(None),
            status => return Err(Failure::Bad(status.to_string())),
        }
        let server = response.headers().get(header::SERVER);
        let server = server.and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
        let value = serde_json::from_slice(&body);
        let value = value.map_err(|error| Failure::Bad(format!("not its JSON: {error}")))?;
        Ok(Some(Answer { value, server }))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        match error {
            Error::Io(error)
                if matches!(error.kind(), NotFound | ConnectionRefused | PermissionDenied) =>
            {
                Self::Absent
            }
            error => Self::Bad(error.to_string()),
        }
    }
}

#[derive(Debug)]
struct UnixConnector(PathBuf);

impl Connector for UnixConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let timeout = details.timeout.not_zero().map_or(PATIENCE, |left| (*left).min(PATIENCE));
        let socket = socket_http::connect(Domain::UNIX, &SockAddr::unix(&self.0)?, timeout)?;
        Ok(Some(SocketTransport::new(socket, Deadline::Exact)))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread;

    use serde_json::Value;

    use super::*;

    /// Asks an engine that `serve` plays; says what it got and that it took no longer than allowed.
    fn ask(serve: impl FnOnce(UnixStream) + Send + 'static) -> Result<Value, Failure> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).expect("a new socket");
        thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("the client connects");
            let mut request = [0; 1024];
            let _request = client.read(&mut request);
            serve(client);
        });
        let begin = Instant::now();
        let answer = Asker::new(&path).get("/containers/json?all=true");
        // Twice the limit, for a machine that is busy with other tests.
        assert!(begin.elapsed() < PATIENCE * 2, "{:?}", begin.elapsed());
        answer.map(|answer| answer.value)
    }

    fn is_bad(answer: &Result<Value, Failure>) -> bool {
        matches!(answer, Err(Failure::Bad(_)))
    }

    /// Writes until the other end has had enough.
    fn write_for_ever(mut client: UnixStream, head: &str, piece: &[u8], pause: Duration) {
        let mut open = client.write_all(head.as_bytes()).is_ok();
        while open {
            open = client.write_all(piece).is_ok();
            thread::park_timeout(pause);
        }
    }

    #[test]
    fn an_answer_is_read_with_the_name_of_the_engine() {
        let answer = ask(|mut client| {
            let text =
                "HTTP/1.1 200 OK\r\nServer: Docker/20 (linux)\r\nContent-Length: 2\r\n\r\n[]";
            let _gone = client.write_all(text.as_bytes());
        });
        assert_eq!(answer.expect("an answer"), Value::Array(Vec::new()));
    }

    #[test]
    fn garbage_is_no_answer() {
        assert!(is_bad(&ask(|mut client| {
            let _gone = client.write_all(&[0xff; 4096]);
        })));
        assert!(is_bad(&ask(|mut client| {
            let _gone = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{[}");
        })));
        assert!(is_bad(&ask(drop)), "it closes without a word");
    }

    #[test]
    fn silence_is_no_answer() {
        let (end, wait) = std::sync::mpsc::channel::<()>();
        assert!(is_bad(&ask(move |client| {
            let _ended = wait.recv();
            drop(client);
        })));
        drop(end);
    }

    #[test]
    fn all_questions_of_a_round_have_one_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("engine.sock");
        let _silent = UnixListener::bind(&path).expect("a new socket");
        let begin = Instant::now();
        let asker = Asker::new(&path);
        for _ in 0..4 {
            assert!(matches!(asker.get::<Value>("/x"), Err(Failure::Bad(_))));
        }
        assert!(begin.elapsed() < PATIENCE * 3, "{:?}", begin.elapsed());
    }

    #[test]
    fn an_answer_that_drips_or_never_ends_is_cut_off() {
        let pause = Duration::from_millis(5);
        assert!(is_bad(&ask(move |client| write_for_ever(client, "HTTP/1.1 ", b"2", pause))));
        let body = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(is_bad(&ask(move |client| write_for_ever(client, body, b"1\r\n[\r\n", pause))));
        let fast = b"1000\r\n".iter().copied().chain([b' '; 4096]).chain(*b"\r\n");
        let fast: Vec<u8> = fast.collect();
        let none = Duration::ZERO;
        assert!(is_bad(&ask(move |client| write_for_ever(client, body, &fast, none))));
    }

    #[test]
    fn where_nobody_is_nobody_is_asked() {
        let answer = Asker::new(Path::new("/nonexistent/engine.sock")).get::<Value>("/x");
        assert!(matches!(answer, Err(Failure::Absent)));
    }
}
