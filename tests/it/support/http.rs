//! A small HTTP/1.1 client that sends exactly what it is told, right or wrong.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use super::PATIENCE;

/// Where a daemon listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// A port on 127.0.0.1.
    Tcp(u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// One request. Host and Content-Length are added unless it brings its own.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// A request without a body.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A request with a JSON body.
    pub(crate) fn json(method: &str, path: &str, body: &Value) -> Self {
        Self::new(method, path).body("application/json", body.to_string())
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a body of any kind.
    pub(crate) fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = self.header("Content-Type", content_type);
        request.body = body.into();
        request
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
    }

    fn to_bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let mut add = |name: &str, value: &str| {
            write!(head, "{name}: {value}\r\n").expect("a String can be written to");
        };
        for (name, value) in &self.headers {
            add(name, value);
        }
        if !self.has("Host") {
            add("Host", host);
        }
        if !self.body.is_empty() && !self.has("Content-Length") {
            add("Content-Length", &self.body.len().to_string());
        }
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Checks the status and returns the body as JSON.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "status of {self:#?}");
        self.json()
    }

    /// Checks that it is a refusal as the interface has them, with this status and code.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["code"], code, "code of {self:#?}");
        assert_eq!(body["success"], false, "success of {self:#?}");
        assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{self:#?}");
        assert!(body["context"]["suggestions"].is_array(), "suggestions of {self:#?}");
        body
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection that stays open from request to request.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    host: String,
    /// What was read beyond the last answer.
    pending: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: &Address) -> io::Result<Self> {
        let (stream, host): (Box<dyn Stream>, String) = match address {
            Address::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                (Box::new(stream), format!("127.0.0.1:{port}"))
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                (Box::new(stream), "localhost".into())
            }
        };
        Ok(Self { stream, host, pending: Vec::new() })
    }

    /// Sends a request and reads its answer.
    pub(crate) fn send(&mut self, request: &Request) -> io::Result<Reply> {
        let bytes = request.to_bytes(&self.host);
        self.send_bytes(&bytes)
    }

    /// Sends a request and reads nothing of its answer.
    pub(crate) fn send_head(&mut self, request: &Request) -> io::Result<()> {
        let bytes = request.to_bytes(&self.host);
        self.stream.write_all(&bytes)
    }

    /// Reads on until `text` has come and a blank line behind it: all that was read.
    pub(crate) fn read_until(&mut self, text: &str) -> io::Result<String> {
        let start = std::time::Instant::now();
        while start.elapsed() < PATIENCE {
            let read = String::from_utf8_lossy(&self.pending).into_owned();
            if read.split_once(text).is_some_and(|(_, rest)| rest.contains("\n\n")) {
                return Ok(read);
            }
            self.read_more()?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Forgets what was read so far.
    pub(crate) fn forget(&mut self) {
        self.pending.clear();
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        // A server may refuse and close before it has read everything: its answer still counts.
        let sent = self.stream.write_all(bytes);
        match self.read_reply() {
            Err(_) if sent.is_err() => Err(sent.expect_err("it is one")),
            reply => reply,
        }
    }

    fn read_reply(&mut self) -> io::Result<Reply> {
        let head_end = loop {
            match find(&self.pending, b"\r\n\r\n") {
                Some(at) => break at,
                None => self.read_more()?,
            }
        };
        let head = String::from_utf8_lossy(&self.pending[..head_end]).into_owned();
        self.pending.drain(..head_end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status line: {head}")))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: String::new() };
        let body = if reply.header("Transfer-Encoding").is_some_and(|value| value == "chunked") {
            self.read_chunks()?
        } else {
            let length = reply.header("Content-Length").and_then(|value| value.parse().ok());
            self.read_exactly(length.unwrap_or(0))?
        };
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    fn read_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                match find(&self.pending, b"\r\n") {
                    Some(at) => break at,
                    None => self.read_more()?,
                }
            };
            let size = String::from_utf8_lossy(&self.pending[..end]).into_owned();
            self.pending.drain(..end + 2);
            let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
            let chunk = self.read_exactly(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn read_exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            self.read_more()?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.pending.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            // A socket with a timeout says this whatever the handlers want (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
