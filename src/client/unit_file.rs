//! Unit files as Styxy writes them: with a program of one's own, and a mark.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// The program that the packaged units start.
const PACKAGED: &str = "/usr/bin/styxy";

/// How the first line of a file begins that Styxy wrote. The CRC-32 of all other lines follows, so
/// that a file that somebody changed is told from it.
const MARK: &str = "# Written by `styxy daemon install`, and removed by `styxy daemon uninstall` \
                    unless changed: CRC-32 ";

/// The longest file that is looked into, in bytes.
const LONGEST: u64 = 64 << 10;

/// What is at a unit's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing.
    Absent,
    /// Just what would be written, with or without the mark.
    Same,
    /// What Styxy wrote.
    Ours,
    /// What Styxy wrote and somebody changed.
    Changed,
    /// Another file, directory or link: `systemctl mask` makes one.
    Foreign,
}

/// A packaged unit for `program`, an absolute path, marked.
pub(super) fn render(packaged: &str, program: &str) -> String {
    let mut body = String::with_capacity(packaged.len() + 256);
    for line in packaged.lines() {
        match command(line) {
            Some((before, after)) => {
                body.push_str(before);
                body.push_str(&command_word(program));
                body.push_str(after);
            }
            None => body.push_str(line),
        }
        body.push('\n');
    }
    mark(&body) + &body
}

/// What stands before and after the packaged program in a line that starts it: `ExecStart=` and
/// its like, with the prefixes of systemd.service(5).
fn command(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let program = value.trim_start_matches(['-', '@', ':', '+', '!']);
    let after = program.strip_prefix(PACKAGED)?;
    let is_command = key.starts_with("Exec") && (after.is_empty() || after.starts_with(' '));
    is_command.then(|| (&line[..line.len() - program.len()], after))
}

/// A program as the first word of a command line (systemd.service(5), "Command lines"; quoting by
/// systemd.syntax(7)).
fn command_word(program: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@".contains(c);
    if program.chars().all(is_plain) {
        return program.to_owned();
    }
    // systemd takes no quotes, backslashes or control characters in a program's path, however they
    // are written. A shell does, and becomes the program.
    if program.contains(|c: char| c.is_control() || "\"'\\".contains(c)) {
        let program = quoted(program).replace('$', "$$");
        return format!("/bin/sh -c 'exec \"$$0\" \"$$@\"' {program}");
    }
    // No variable is replaced in the path of a program.
    quoted(program)
}

/// In quotes, with escapes of C, and no specifier (systemd.unit(5)) in it.
fn quoted(word: &str) -> String {
    let mut quoted = String::with_capacity(word.len() + 8);
    quoted.push('"');
    for c in word.chars() {
        match c {
            '%' => quoted.push_str("%%"),
            '"' | '\\' => quoted.extend(['\\', c]),
            // A unit is UTF-8, so that of the others only these are in the way.
            c if c.is_ascii_control() => {
                // To write into a String cannot fail.
                let _ = write!(quoted, "\\x{:02x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn mark(body: &str) -> String {
    format!("{MARK}{:08x}\n", crc32fast::hash(body.as_bytes()))
}

/// What is at `path`, where `text` is what would be written there.
///
/// # Errors
///
/// When it cannot be read.
pub(super) fn standing(path: &Path, text: &str) -> io::Result<Standing> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Standing::Absent),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() => return Ok(Standing::Foreign),
        Ok(_) => {}
    }
    let mut found = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut found)?;
    let Ok(found) = String::from_utf8(found) else { return Ok(Standing::Foreign) };
    let body = |text: &str| text.split_once('\n').map(|(_, body)| body.to_owned());
    if found == text || Some(&found) == body(text).as_ref() {
        return Ok(Standing::Same);
    }
    if !found.starts_with(MARK) {
        return Ok(Standing::Foreign);
    }
    let is_whole = body(&found).is_some_and(|body| found.starts_with(&mark(&body)));
    Ok(if is_whole { Standing::Ours } else { Standing::Changed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(program: &str) -> String {
        let unit = render("[Service]\nExecStart=/usr/bin/styxy daemon run\n", program);
        let line = unit.lines().nth(2).expect("the third line");
        let command = line.strip_prefix("ExecStart=").and_then(|it| it.strip_suffix(" daemon run"));
        command.expect("the same key and arguments").to_owned()
    }

    #[test]
    fn a_path_is_written_so_that_systemd_reads_that_path() {
        assert_eq!(word("/opt/a-b_c+1.0/styxy"), "/opt/a-b_c+1.0/styxy");
        assert_eq!(word("/opt/two words/styxy"), "\"/opt/two words/styxy\"");
        assert_eq!(word("/opt/50%h/styxy"), "\"/opt/50%%h/styxy\"");
        assert_eq!(word("/opt/$HOME;/styxy"), "\"/opt/$HOME;/styxy\"");
        assert_eq!(word("/home/jürgen/styxy"), "\"/home/jürgen/styxy\"");
        let shell = "/bin/sh -c 'exec \"$$0\" \"$$@\"' ";
        assert_eq!(word("/o'b/styxy"), format!("{shell}\"/o'b/styxy\""));
        assert_eq!(word("/a\"b\\c$d/styxy"), format!("{shell}\"/a\\\"b\\\\c$$d/styxy\""));
        assert_eq!(word("/a\nb/styxy"), format!("{shell}\"/a\\x0ab/styxy\""));
    }

    #[test]
    fn every_line_that_starts_the_program_is_changed_and_no_other() {
        let packaged = "# /usr/bin/styxy daemon run\n\
                        ExecStartPre=-/usr/bin/styxy daemon stop --background\n\
                        ExecStart=:/usr/bin/styxy\n\
                        ExecStop=/usr/bin/styxyd\n\
                        Documentation=file:/usr/bin/styxy x\n";
        let unit = render(packaged, "/s");
        let (_, body) = unit.split_once('\n').expect("a mark and a body");
        assert_eq!(
            body,
            "# /usr/bin/styxy daemon run\n\
             ExecStartPre=-/s daemon stop --background\n\
             ExecStart=:/s\n\
             ExecStop=/usr/bin/styxyd\n\
             Documentation=file:/usr/bin/styxy x\n"
        );
    }

    #[test]
    fn a_file_that_was_written_is_told_from_all_others() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("styxy.service");
        let [old, new] = ["/old", "/new"].map(|to| render("ExecStart=/usr/bin/styxy\n", to));
        let standing = || standing(&path, &new);
        assert_eq!(standing()?, Standing::Absent);
        fs::write(&path, &new)?;
        assert_eq!(standing()?, Standing::Same);
        fs::write(&path, "ExecStart=/new\n")?;
        assert_eq!(standing()?, Standing::Same, "somebody wrote the same by hand");
        fs::write(&path, &old)?;
        assert_eq!(standing()?, Standing::Ours);
        for changed in [old.clone() + "# more\n", old.replace("/old", "/ald"), old[..9].to_owned()]
        {
            fs::write(&path, &changed)?;
            let expected =
                if changed.starts_with(MARK) { Standing::Changed } else { Standing::Foreign };
            assert_eq!(standing()?, expected, "{changed}");
        }
        fs::write(&path, b"\xff")?;
        assert_eq!(standing()?, Standing::Foreign);
        fs::remove_file(&path)?;
        std::os::unix::fs::symlink("/dev/null", &path)?;
        assert_eq!(standing()?, Standing::Foreign, "systemctl mask");
        Ok(())
    }
}
