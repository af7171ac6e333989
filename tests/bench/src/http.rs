//! A keep-alive connection: for what is no load but one question after the other.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::figures::time;

/// A connection to the daemon's unix socket.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
}

/// An answer, and how long it took from the first byte sent to the last one read.
#[derive(Debug)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    /// JSON text.
    pub body: Vec<u8>,
    /// How long it took.
    pub took: Duration,
}

impl Answer {
    /// The body's value.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("every answer is JSON")
    }

    /// This answer, which must have said yes.
    #[track_caller]
    pub fn accepted(self) -> Self {
        let said = String::from_utf8_lossy(&self.body);
        assert!(matches!(self.status, 200 | 201), "{}: {said}", self.status);
        self
    }
}

impl Client {
    /// Connects to a socket.
    pub fn new(socket: &Path) -> std::io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(socket)?, buffer: Vec::new() })
    }

    /// Its connection.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// One request and its answer.
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let request = request(method, path, body);
        let (took, (status, body)) = time(|| {
            self.stream.write_all(request.as_bytes()).expect("the daemon reads");
            self.read()
        });
        Answer { status, body, took }
    }

    /// One request, whose answer is [`Client::read`] later.
    pub fn send(&mut self, method: &str, path: &str, body: &str) {
        let request = request(method, path, body);
        self.stream.write_all(request.as_bytes()).expect("the daemon reads");
    }

    /// An answer's status and body.
    pub fn read(&mut self) -> (u16, Vec<u8>) {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|it| it == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
                let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
                let length = head.lines().find_map(|it| it.strip_prefix("content-length: "));
                let length: usize = length.map_or(0, |it| it.parse().expect("a length"));
                while self.buffer.len() < end + 4 + length {
                    self.more();
                }
                let rest = self.buffer.split_off(end + 4 + length);
                let body = self.buffer.split_off(end + 4);
                self.buffer = rest;
                return (status.expect("a status line"), body);
            }
            self.more();
        }
    }

    fn more(&mut self) {
        let mut chunk = [0; 64 * 1024];
        let read = self.stream.read(&mut chunk).expect("the daemon answers");
        assert!(read > 0, "the daemon hung up");
        self.buffer.extend_from_slice(&chunk[..read]);
    }
}

fn request(method: &str, path: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
