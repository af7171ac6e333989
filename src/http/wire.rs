//! What hyper leaves to be done on a connection: to see that the reader of an event stream is gone,
//! and to explain what is refused before there is a request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::SERVER;
use super::refusal::Refusal;

/// What goes on on a connection. All of it is seen and said by one task.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    /// When the last answer was there, in nanoseconds since `begun`.
    last: AtomicU64,
    /// A request is being answered.
    answering: AtomicBool,
    /// The client does not take the answer that is there.
    blocked: AtomicBool,
}

impl Progress {
    /// A connection that has just begun.
    pub(super) fn new() -> Self {
        Self(Arc::new(State {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            answering: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
        }))
    }

    /// A request is there, with at least its head.
    pub(super) fn begin(&self) {
        self.0.answering.store(true, Ordering::Relaxed);
    }

    /// Its answer is there.
    pub(super) fn done(&self) {
        let last = u64::try_from(self.0.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.last.store(last, Ordering::Relaxed);
        self.0.answering.store(false, Ordering::Relaxed);
    }

    /// Since when the client may send its next request.
    pub(super) fn since(&self) -> Instant {
        self.0.begun + Duration::from_nanos(self.0.last.load(Ordering::Relaxed))
    }

    /// Whether anything would be lost if the connection ended now.
    pub(super) fn is_busy(&self) -> bool {
        self.0.answering.load(Ordering::Relaxed) || self.0.blocked.load(Ordering::Relaxed)
    }
}

/// A connection, as hyper is to see it.
///
/// A client may shut its side down once it has sent its request (RFC 9112, 9.6), as `nc -N` does.
/// Told to allow that, hyper reads nothing while it writes an answer, so it never sees that the
/// reader of an event stream is gone. That is seen here.
///
/// What is no HTTP, or too long, hyper answers by itself with a head and nothing else: such an
/// answer gets its body here.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    progress: Progress,
    /// It is an event stream.
    streams: Arc<AtomicBool>,
    /// What a client has sent while it reads one. Nobody looks any further then.
    early: Option<u8>,
    /// What is to be written instead of something that hyper wrote, and how much of it was.
    explanation: (Vec<u8>, usize),
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, progress: Progress, streams: Arc<AtomicBool>) -> Self {
        Self { stream, progress, streams, early: None, explanation: (Vec::new(), 0) }
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Fails when the reader of an event stream has gone.
    fn look_for_the_reader(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.early.is_some() || !self.streams.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        if Pin::new(&mut self.stream).poll_read(context, &mut buffer)?.is_ready() {
            let early = buffer.filled().first().copied();
            self.early = Some(early.ok_or(io::ErrorKind::UnexpectedEof)?);
        }
        Ok(())
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn poll_explain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (text, written) = &mut self.explanation;
        while let Some(rest) = text.get(*written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(early) = self.early
            && buffer.remaining() > 0
        {
            self.early = None;
            buffer.put_slice(&[early]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(explanation) = explain(bytes) {
            self.explanation = (explanation, 0);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.progress.0.blocked.store(written.is_pending(), Ordering::Relaxed);
        if written.is_pending() {
            // hyper does not come to flush.
            self.look_for_the_reader(context)?;
        }
        written
    }

    // hyper calls it whenever it has been woken, with nothing to write as well.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look_for_the_reader(context)?;
        ready!(self.poll_explain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_explain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// An answer in the place of one that hyper made by itself. Ours name their server, and no body of
/// ours has a line like that: JSON escapes the ends of lines.
fn explain(bytes: &[u8]) -> Option<Vec<u8>> {
    let status = bytes.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    let head = std::str::from_utf8(bytes).ok()?.strip_suffix("\r\n\r\n")?;
    if head.contains("\r\nserver: ") {
        return None;
    }
    // An address that is too long is a head that is too long: it never comes to 414.
    let (status, error) = match status {
        b"31" => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is too long"),
        _ => (StatusCode::BAD_REQUEST, "this is no request of HTTP/1.1"),
    };
    let hint = "send a request as RFC 9112 has it, with a short head";
    let body = serde_json::to_string(&Refusal::new(status, "malformed_request", error, hint).body);
    let body = body.ok()?;
    let head = format!(
        "HTTP/1.1 {status}\r\nserver: {SERVER}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    Some([head.as_bytes(), body.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_hyper_says_by_itself_is_explained() {
        let explained = |text: &str| {
            let bytes = explain(text.as_bytes())?;
            Some(String::from_utf8(bytes).expect("UTF-8"))
        };
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: Tue, 24 Nov 2026 10:00:00 GMT\r\n\r\n";
        let text = explained(bare).expect("an explanation");
        assert!(text.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{text}");
        assert!(text.contains("\"code\":\"malformed_request\""), "{text}");
        for ours in [
            "HTTP/1.1 404 Not Found\r\nserver: styxy/0.1.0\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 400 Bad Request\\r\\n\\r\\n in a name",
            "HTTP/1.1 200 OK\r\n\r\n",
            "{}",
            "",
        ] {
            assert_eq!(explained(ours), None, "{ours}");
        }
    }
}
