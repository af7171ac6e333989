//! `styxy env`: the ports of a project's services, as variables.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::args::Env;
use super::assigned::{assign, port_of, unreserved as unreserved_ports};
use super::context::{Context, fault, read, to_json};
use super::failure::{Exit, Failed};
use super::here::Here;
use super::output::{self, View};
use crate::api::{AssignResponse, Assignment, AssignmentsResponse, Moved};
use crate::client::Failure;
use crate::coordinator::Call;
use crate::project::{SERVICES_FILE, Service};
use crate::text::printable_json;

/// What a file that `--write` made begins with, and what only such a file begins with.
const MARK: &str = "# Written by styxy env";

pub(super) fn run(context: &Context, args: &Env) -> Result<ExitCode, Failed> {
    let mut here = Here::now(context.settings());
    refuse_mistakes(&here)?;
    let project = here.project_or_fail()?.to_owned();
    let answer = match ports(context, &mut here, &project) {
        Ok(answer) => answer,
        Err(failure) if failure.is_own_trouble() && args.required.require => {
            return Err(Failed::from(failure).exit(Exit::Unreachable));
        }
        Err(failure) if failure.is_own_trouble() => {
            let answer = unreserved(context, &here).map_err(|_| Failed::from(failure.clone()))?;
            context.say(&format!("warning: not reserved ({failure})"));
            answer
        }
        Err(failure) => return Err(failure.into()),
    };
    let variables = variables(&here, &answer.assignments);
    if variables.is_empty() {
        return Err(no_services(&project));
    }
    for moved in &answer.moved {
        context.say(&moved_line(moved));
    }
    let text = if context.global.json {
        json_text(&answer, &variables)?
    } else if args.shell {
        lines(&variables, "export ")
    } else {
        lines(&variables, "")
    };
    match &args.write {
        Some(file) => write(context, file, &text, context.global.json)?,
        None => output::print(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Half an environment is worse than none: a service that a mistake leaves out would be looked for
/// on a port that it never had.
fn refuse_mistakes(here: &Here) -> Result<(), Failed> {
    let mut mistakes = here.diagnostics.iter().filter(|it| !it.is_warning);
    let Some(first) = mistakes.next() else { return Ok(()) };
    let failed = Failed::new(Exit::Config, fault(first));
    Err(failed.next("styxy config check    (all mistakes)"))
}

/// The assignments of what styxy.toml names; without that file, of what ran here under a name.
fn ports(context: &Context, here: &mut Here, project: &str) -> Result<AssignResponse, Failure> {
    let mut client = context.connect()?;
    if here.services.is_empty() {
        let call = Call::Assignments(Some(project.to_owned()));
        let known: AssignmentsResponse = read(&client.call(&call)?)?;
        let named = |it: &Assignment| {
            it.service_name.as_deref().map(|name| Service::new(name, &it.service_type))
        };
        here.services = known.assignments.iter().filter_map(named).collect();
        if here.services.is_empty() {
            return Ok(AssignResponse { success: true, assignments: vec![], moved: vec![] });
        }
    }
    assign(&mut client, here)
}

/// The same without a reservation, by the rules and what can be read of the journal.
fn unreserved(context: &Context, here: &Here) -> Result<AssignResponse, crate::error::Error> {
    let assignments = unreserved_ports(&mut context.fallback(), here)?;
    Ok(AssignResponse { success: true, assignments, moved: vec![] })
}

/// Each variable with its port, in the order of styxy.toml. Two names may be one variable only where
/// there is no such file: the first has it then.
fn variables(here: &Here, assignments: &[Assignment]) -> Vec<(String, u16)> {
    let mut variables: Vec<(String, u16)> = Vec::new();
    for service in here.services.all() {
        if let Some(port) = port_of(assignments, &service.name)
            && variables.iter().all(|(variable, _)| *variable != service.variable)
        {
            variables.push((service.variable.clone(), port));
        }
    }
    variables
}

/// A name has only letters, digits and '_', and a port only digits: nothing has to be quoted, for a
/// shell as little as for compose and direnv.
fn lines(variables: &[(String, u16)], before: &str) -> String {
    let line = |(variable, port): &(String, u16)| format!("{before}{variable}={port}\n");
    variables.iter().map(line).collect()
}

/// The wire's answer, with the variables.
fn json_text(answer: &AssignResponse, variables: &[(String, u16)]) -> Result<String, Failed> {
    let mut body: Map<String, Value> =
        serde_json::from_str(&to_json(answer)?).map_err(|error| {
            Failed::new(Exit::No, format!("the daemon's answer can't be shown: {error}"))
        })?;
    let variables = variables.iter().map(|(name, port)| (name.clone(), json!(port)));
    body.insert("variables".to_owned(), variables.collect());
    Ok(printable_json(to_json(&body)? + "\n"))
}

fn moved_line(moved: &Moved) -> String {
    let name = moved.service_name.as_deref().unwrap_or(&moved.service_type);
    format!("styxy: {name} has port {} from now on, it was {}", moved.to, moved.from)
}

fn no_services(project: &str) -> Failed {
    let place = View::current().path(project);
    Failed::new(Exit::No, format!("no services are known in {place}"))
        .next(format!("name them in {place}/{SERVICES_FILE} (man styxy.toml)"))
}

/// Puts `text` into `file`, whole or not at all, and only if it holds something else. A file that
/// somebody else wrote is not touched: it may be all that has their secrets.
fn write(context: &Context, file: &Path, text: &str, is_json: bool) -> Result<(), Failed> {
    let shown = file.display();
    let failed = |error: io::Error| Failed::new(Exit::No, format!("{shown}: {error}"));
    // JSON has no comments: what such a file begins with is its first key.
    let mark = if is_json { "{\"success\":true,\"assignments\":" } else { MARK };
    let text = if is_json { text.to_owned() } else { format!("{MARK}\n{text}") };
    // Behind a link is what is meant.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let before = match fs::read(&file) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    if let Some(before) = &before {
        if before == text.as_bytes() {
            return Ok(());
        }
        if !before.is_empty() && !before.starts_with(mark.as_bytes()) {
            let fact = format!("{shown} was not written by styxy env, and stays as it is");
            return Err(Failed::new(Exit::NotYours, fact)
                .next("another file, such as --write .env.ports, or move that one away"));
        }
    }
    replace(&file, text.as_bytes()).map_err(failed)?;
    context.say(&format!("styxy: wrote {shown}"));
    Ok(())
}

/// A new file in the place of the old one, with its mode: rename(2) is one step for whoever reads.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new_name = std::ffi::OsString::from(".");
    new_name.push(name);
    new_name.push(format!(".styxy-{}", std::process::id()));
    let new = file.with_file_name(new_name);
    let written = (|| {
        let mut made = fs::OpenOptions::new().write(true).create_new(true).open(&new)?;
        made.write_all(text)?;
        if let Ok(before) = fs::metadata(file) {
            made.set_permissions(fs::Permissions::from_mode(before.permissions().mode()))?;
        }
        made.sync_all()?;
        fs::rename(&new, file)
    })();
    if written.is_err() {
        // What is left of it helps nobody; the error that counts is the first.
        drop(fs::remove_file(&new));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context::new(crate::cli::args::Global { json: false, quiet: true })
    }

    #[test]
    fn variables_are_lines_for_every_reader() {
        let ports = [("WEB_PORT".to_owned(), 3000), ("_3D_PORT".to_owned(), 8001)];
        assert_eq!(lines(&ports, ""), "WEB_PORT=3000\n_3D_PORT=8001\n");
        assert_eq!(lines(&ports, "export "), "export WEB_PORT=3000\nexport _3D_PORT=8001\n");
    }

    #[test]
    fn a_file_is_replaced_when_it_is_ours_and_says_something_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join(".env");
        let write = |text: &str| write(&context(), &file, text, false);
        let read = || fs::read_to_string(&file).expect("a file");
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).expect("a file"));

        write("A=1\n").expect("written");
        assert_eq!(read(), format!("{MARK}\nA=1\n"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("chmod");
        let first = inode();
        write("A=1\n").expect("nothing to do");
        assert_eq!(inode(), first, "the same text is not written again");
        write("A=2\n").expect("written");
        assert_eq!(read(), format!("{MARK}\nA=2\n"));
        assert_ne!(inode(), first, "the whole file is another one");
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "its mode stays");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);

        fs::write(&file, "SECRET=x\n").expect("a file");
        let failed = write("A=3\n").expect_err("it is somebody else's");
        assert_eq!(failed.exit, Exit::NotYours);
        assert_eq!(read(), "SECRET=x\n");
        fs::write(&file, "").expect("a file");
        write("A=4\n").expect("an empty file is nobody's");
    }

    #[test]
    fn a_file_behind_a_link_is_replaced_and_the_link_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("real"), directory.path().join(".env"));
        fs::write(&file, MARK).expect("a file");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        write(&context(), &link, "A=1\n", false).expect("written");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(fs::read_to_string(&file).expect("a file"), format!("{MARK}\nA=1\n"));
    }
}
