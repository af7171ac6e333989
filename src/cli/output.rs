//! How an answer looks: tables, ages, paths, and foreign text made harmless.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use clap::builder::styling::{AnsiColor, Style};

use super::failure::{Exit, Failed};
pub(super) use crate::text::printable;
use crate::text::printable_json;

/// Makes `FORCE_COLOR` count (force-color.org) beside `NO_COLOR` (no-color.org), which wins.
/// anstream knows only the latter by itself.
pub(super) fn honour_force_color() {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if set("NO_COLOR").is_some() {
        return;
    }
    match set("FORCE_COLOR") {
        Some(value) if value == "0" => anstream::ColorChoice::Never.write_global(),
        Some(_) => anstream::ColorChoice::Always.write_global(),
        None => {}
    }
}

/// Writes to stdout, with colours only where they are wanted.
///
/// # Errors
///
/// When stdout cannot take it. A reader that has gone away had enough: that is success.
pub(super) fn print(text: &str) -> Result<(), Failed> {
    write_all(anstream::stdout().lock(), text)
}

/// Writes an answer of the wire to stdout as one line: the same JSON, fit for a terminal.
///
/// # Errors
///
/// As [`print()`].
pub(super) fn print_json(body: &str) -> Result<(), Failed> {
    write_all(io::stdout().lock(), &printable_json(format!("{}\n", body.trim_end())))
}

/// Writes to stdout and says whether anybody reads it: for what goes on until nobody does.
///
/// # Errors
///
/// As [`print()`].
pub(super) fn print_on(text: &str) -> Result<bool, Failed> {
    try_write(anstream::stdout().lock(), text)
}

fn write_all(out: impl Write, text: &str) -> Result<(), Failed> {
    try_write(out, text).map(drop)
}

fn try_write(mut out: impl Write, text: &str) -> Result<bool, Failed> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::No, format!("the answer can't be written: {error}")))
        }
        written => Ok(written.is_ok()),
    }
}

/// Writes a line to stderr. There is nobody to tell when stderr is broken.
pub(super) fn print_error_line(line: &str) {
    let _ = writeln!(anstream::stderr().lock(), "{line}");
}

/// Whether a person looks at stdout: only then do tables have headers.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Where a browser finds a port.
pub(super) fn url(port: u16) -> String {
    format!("http://localhost:{port}")
}

/// What a reader is used to: their home, and the time.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The home directory, without a slash at its end.
    pub(super) home: Option<String>,
    /// What ages are counted to.
    pub(super) now: SystemTime,
}

impl View {
    /// The user's, now.
    pub(super) fn current() -> Self {
        let home = std::env::var("HOME").ok();
        let home = home.map(|home| home.trim_end_matches('/').to_owned());
        Self { home: home.filter(|home| !home.is_empty()), now: SystemTime::now() }
    }

    /// A path, printable, with `~` for the home directory.
    pub(super) fn path(&self, path: &str) -> String {
        let below_home = self.home.as_deref().and_then(|home| path.strip_prefix(home));
        match below_home {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!("~{}", printable(rest))
            }
            _ => printable(path).into_owned(),
        }
    }

    /// How long ago `time` (RFC 3339) was. A clock that was set back makes it no less than zero.
    pub(super) fn since(&self, time: &str) -> Option<Duration> {
        let time = humantime::parse_rfc3339(time).ok()?;
        Some(self.now.duration_since(time).unwrap_or_default())
    }

    /// How long it is until `time` (RFC 3339).
    pub(super) fn until(&self, time: &str) -> Option<Duration> {
        let time = humantime::parse_rfc3339(time).ok()?;
        Some(time.duration_since(self.now).unwrap_or_default())
    }

    /// The age of what happened at `time`, short: `14m`.
    pub(super) fn age(&self, time: &str) -> String {
        self.since(time).map_or_else(|| "?".to_owned(), short)
    }
}

/// The largest whole unit of a duration, and how many of it.
fn largest_unit(duration: Duration) -> (u64, &'static str) {
    match duration.as_secs() {
        seconds @ 0..60 => (seconds, "second"),
        seconds @ 60..3_600 => (seconds / 60, "minute"),
        seconds @ 3_600..86_400 => (seconds / 3_600, "hour"),
        seconds => (seconds / 86_400, "day"),
    }
}

/// A duration for a table: `14m`.
pub(super) fn short(duration: Duration) -> String {
    let (count, unit) = largest_unit(duration);
    format!("{count}{}", &unit[..1])
}

/// A duration for a sentence: `14 minutes`.
pub(super) fn long(duration: Duration) -> String {
    let (count, unit) = largest_unit(duration);
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// One field of a table. The text is printable already.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A field in a colour, which says nothing that the text does not say.
    pub(super) fn coloured(text: impl Into<String>, colour: AnsiColor) -> Self {
        Self { text: text.into(), style: colour.on_default() }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// Rows in columns, without borders.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    headers: [&'static str; N],
    rows: Vec<[Cell; N]>,
}

impl<const N: usize> Table<N> {
    /// An empty table.
    pub(super) fn new(headers: [&'static str; N]) -> Self {
        Self { headers, rows: Vec::new() }
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: [Cell; N]) {
        self.rows.push(row);
    }

    /// The table as text, two spaces between the columns.
    pub(super) fn render(&self, with_headers: bool) -> String {
        let bold = Style::new().bold();
        let headers = self.headers.map(|text| Cell { text: text.to_owned(), style: bold });
        let rows = || with_headers.then_some(&headers).into_iter().chain(&self.rows);
        let width = |column: usize| rows().map(|row| row[column].text.chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        rows().map(|row| line(row, &widths)).collect()
    }
}

/// One row, with nothing after its last text.
fn line<const N: usize>(row: &[Cell; N], widths: &[usize; N]) -> String {
    let mut line = String::new();
    let mut gap = 0;
    for (Cell { text, style }, width) in row.iter().zip(widths) {
        if !text.is_empty() {
            line.extend(std::iter::repeat_n(' ', gap));
            line.extend([
                style.render().to_string(),
                text.clone(),
                style.render_reset().to_string(),
            ]);
            gap = 0;
        }
        gap += width - text.chars().count() + 2;
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let now = humantime::parse_rfc3339("2026-01-17T18:40:52.000Z").expect("a time");
        View { home: Some("/home/ada".to_owned()), now }
    }

    #[test]
    fn paths_below_home_are_shortened_and_only_those() {
        assert_eq!(view().path("/home/ada/src/shop"), "~/src/shop");
        assert_eq!(view().path("/home/ada"), "~");
        assert_eq!(view().path("/home/adam/src"), "/home/adam/src");
        assert_eq!(view().path("/srv\x07"), "/srv\\u{7}");
    }

    #[test]
    fn ages_use_their_largest_unit() {
        let table = [
            (0, "0s", "0 seconds"),
            (1, "1s", "1 second"),
            (59, "59s", "59 seconds"),
            (60, "1m", "1 minute"),
            (14 * 60 + 59, "14m", "14 minutes"),
            (3_600, "1h", "1 hour"),
            (86_400 * 30, "30d", "30 days"),
        ];
        for (seconds, in_table, in_sentence) in table {
            let duration = Duration::from_secs(seconds);
            assert_eq!(short(duration), in_table);
            assert_eq!(long(duration), in_sentence);
        }
    }

    #[test]
    fn an_age_is_never_negative_and_nonsense_is_not_guessed() {
        assert_eq!(view().age("2026-01-17T18:26:52.000Z"), "14m");
        assert_eq!(view().age("2027-01-17T18:26:52.000Z"), "0s");
        assert_eq!(view().age("yesterday"), "?");
    }

    #[test]
    fn a_table_aligns_its_columns_and_pads_nothing_at_the_end() {
        let mut table = Table::new(["PORT", "STATE", "SERVICE"]);
        table.push(["80".into(), Cell::coloured("listening", AnsiColor::Green), "dev/web".into()]);
        table.push(["65535".into(), "reserved".into(), "".into()]);
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain(table.render(true)),
            "PORT   STATE      SERVICE\n80     listening  dev/web\n65535  reserved\n"
        );
        assert_eq!(plain(table.render(false)), "80     listening  dev/web\n65535  reserved\n");
    }
}
