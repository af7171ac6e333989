//! The daemon's event stream, read on a thread of its own, so that a wait for it can have an end.

use std::io::{BufRead, BufReader, Read as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::Body;

/// How many events the reading thread may be ahead.
const AHEAD: usize = 64;

/// The longest line that is believed to be an event's, in bytes.
const MAX_LINE: u64 = 1024 * 1024;

/// Something that the daemon said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An event: its name, and its data as JSON.
    Event(String, String),
    /// The daemon lives, and nothing has happened.
    Alive,
}

/// An open event stream.
#[derive(Debug)]
pub struct Events(Receiver<Said>);

/// Why there is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Nothing was said in that time.
    Timeout,
    /// The stream has ended: the daemon has gone.
    Ended,
}

impl Events {
    /// Reads the body of an answer to `GET /events`.
    pub(super) fn read(body: Body) -> Self {
        let (sender, receiver) = sync_channel(AHEAD);
        // It ends with the stream, or with the first event that nobody wants any more.
        thread::spawn(move || {
            let reader = BufReader::new(body.into_reader());
            parse(reader, |said| sender.send(said).is_ok());
        });
        Self(receiver)
    }

    /// The next thing that is said; `None` for the limit waits without end.
    ///
    /// # Errors
    ///
    /// [`Silence`].
    pub fn next(&self, limit: Option<Duration>) -> Result<Said, Silence> {
        let Some(limit) = limit else { return self.0.recv().map_err(|_| Silence::Ended) };
        self.0.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => Silence::Timeout,
            RecvTimeoutError::Disconnected => Silence::Ended,
        })
    }
}

/// Reads server-sent events (WHATWG HTML, section 9.2.6) as the daemon writes them: each with one
/// `event` and one `data` line. It ends with the stream, or when nobody listens any more.
fn parse(mut reader: impl BufRead, mut listen: impl FnMut(Said) -> bool) {
    let (mut name, mut data) = (String::new(), String::new());
    let mut line = String::new();
    loop {
        line.clear();
        // A stream that breaks off in the middle has ended too.
        match (&mut reader).take(MAX_LINE).read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        let text = line.trim_end_matches(['\r', '\n']);
        let goes_on = if text.is_empty() {
            let said = Said::Event(std::mem::take(&mut name), std::mem::take(&mut data));
            said == Said::Event(String::new(), String::new()) || listen(said)
        } else if text.starts_with(':') {
            listen(Said::Alive)
        } else {
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => data.push_str(value),
                _ => {}
            }
            true
        };
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_signs_of_life_are_told_apart() {
        let stream = ": styxy\n\nevent: allocated\ndata: {\"port\":1}\n\nid: 7\r\nevent:moved\r\n\
                      data:{}\r\n\r\nevent: cut o";
        let mut said = Vec::new();
        parse(stream.as_bytes(), |one| {
            said.push(one);
            true
        });
        let event = |name: &str, data: &str| Said::Event(name.to_owned(), data.to_owned());
        let expected = [Said::Alive, event("allocated", "{\"port\":1}"), event("moved", "{}")];
        assert_eq!(said, expected);
    }

    #[test]
    fn nothing_is_read_for_nobody() {
        let mut reader = ": one\n\n: two\n\n".as_bytes();
        parse(&mut reader, |_| false);
        assert_eq!(reader, b"\n: two\n\n");
    }
}
