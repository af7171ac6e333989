//! What hyper leaves to be done on a connection: to answer a client that writes no more, and to
//! explain what is refused before there is a request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::http::StatusCode;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::refusal::Refusal;
use super::{SERVER, lock};

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
    /// The client has shut down its side meanwhile.
    ended: AtomicBool,
    /// Whoever was kept from seeing that.
    reader: Mutex<Option<Waker>>,
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
            ended: AtomicBool::new(false),
            reader: Mutex::new(None),
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
        if self.0.ended.load(Ordering::Relaxed)
            && let Some(reader) = lock(&self.0.reader).take()
        {
            reader.wake();
        }
    }

    /// Since when the client may send its next request.
    pub(super) fn since(&self) -> Instant {
        self.0.begun + Duration::from_nanos(self.0.last.load(Ordering::Relaxed))
    }

    /// Whether anything would be lost if the connection ended now.
    pub(super) fn is_busy(&self) -> bool {
        self.is_answering() || self.0.blocked.load(Ordering::Relaxed)
    }

    fn is_answering(&self) -> bool {
        self.0.answering.load(Ordering::Relaxed)
    }
}

/// A request's body. It breaks off when the client has shut down its side in the middle of it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) body: Incoming,
    pub(super) progress: Progress,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            // What had come before the end has been handed on before this.
            Poll::Pending if self.progress.0.ended.load(Ordering::Relaxed) => {
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())))
            }
            frame => frame.map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection, as hyper is to see it.
///
/// A client may shut its side down once it has sent its request (RFC 9112, 9.6), as `nc -N` does.
/// hyper either gives up such a request, or, told to allow it, never sees that the reader of an
/// event stream is gone. So the end is kept from it while an answer is made, and no longer.
///
/// What is no HTTP, or too long, hyper answers by itself with a head and nothing else: such an
/// answer gets its body here.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    progress: Progress,
    /// What is to be written instead of something that hyper wrote, and how much of it was.
    explanation: (Vec<u8>, usize),
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S, progress: Progress) -> Self {
        Self { stream, progress, explanation: (Vec::new(), 0) }
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
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() == before && self.progress.is_answering() {
            *lock(&self.progress.0.reader) = Some(context.waker().clone());
            self.progress.0.ended.store(true, Ordering::Relaxed);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
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
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
