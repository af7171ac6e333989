//! A web site: pages for a real browser, and an ear for what their scripts report.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// One request, as a site got it.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    /// `METHOD PATH`.
    pub(crate) what: String,
    /// Its header lines.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

/// A site on a port of 127.0.0.1. It answers every request with its page, asks for no protection,
/// and gives its port back when dropped.
pub(crate) struct Site {
    port: u16,
    visits: Arc<Mutex<Vec<Visit>>>,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Site {
    /// Opens it.
    pub(crate) fn open(port: u16, page: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let visits: Arc<Mutex<Vec<Visit>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let server = std::thread::spawn({
            let (visits, stop, page) = (Arc::clone(&visits), Arc::clone(&stop), page.to_owned());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (visits, page) = (Arc::clone(&visits), page.clone());
                    // A browser opens connections that it may never use.
                    std::thread::spawn(move || {
                        let visit = stream.and_then(|stream| serve(stream, &page));
                        if let Ok(visit) = visit {
                            visits.lock().unwrap_or_else(PoisonError::into_inner).push(visit);
                        }
                    });
                }
            }
        });
        Self { port, visits, stop, server: Some(server) }
    }

    /// The requests so far.
    pub(crate) fn visits(&self) -> Vec<Visit> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The body that was posted to this path, once it was.
    pub(crate) fn report(&self, path: &str) -> Result<String, String> {
        let visits = self.visits();
        let found = visits.iter().find(|visit| visit.what == format!("POST {path}"));
        found.map(|visit| visit.body.clone()).ok_or_else(|| format!("{visits:#?}"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits in accept(2).
        let woken = TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        if let Some(server) = self.server.take().filter(|_| woken) {
            server.join().expect("it does not panic");
        }
    }
}

fn serve(mut stream: TcpStream, page: &str) -> std::io::Result<Visit> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let what = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut visit = Visit { what, headers: Vec::new(), body: String::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim_end().is_empty() {
            break;
        }
        visit.headers.push(line.trim_end().to_ascii_lowercase());
    }
    let length = visit.headers.iter().find_map(|it| it.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |it| it.parse().expect("a number"))];
    reader.read_exact(&mut body)?;
    visit.body = String::from_utf8_lossy(&body).into_owned();
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{page}"
    )?;
    Ok(visit)
}
