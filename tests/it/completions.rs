//! Completion: what `styxy __complete` answers, and that real shells complete by it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::support::{Home, PATIENCE, eventually, finish, full, has_program, owner, skip};

/// The words that can stand at the end of a line, without what they are.
fn complete(home: &Home, words: &[&str]) -> Vec<String> {
    let output = home.styxy(&[&["__complete", "--"], words].concat()).ok();
    assert_eq!(output.stderr, "", "{}", output.whole());
    let word = |line: &str| line.split('\t').next().unwrap_or_default().to_owned();
    output.stdout.lines().map(word).collect()
}

#[test]
fn what_is_allocated_completes_while_no_daemon_runs() {
    let home = Home::new();
    let other = home.project("other");
    let daemon = home.daemon();
    let owner = owner();
    let pid = owner.pid().to_string();
    let here = home.styxy(&["allocate", "--json", "-n", "web", "--pid", &pid]).ok().json();
    let there = home.styxy_in(&other, &["allocate", "--json", "-n", "shop", "--pid", &pid]);
    let there = there.ok().json();
    home.styxy(&["instance", "register", "editor_a", "--pid", &pid]).ok();
    daemon.stop();

    let port = |answer: &serde_json::Value| answer["port"].to_string();
    let lock_id = |answer: &serde_json::Value| answer["lock_id"].as_str().map(str::to_owned);
    assert_eq!(complete(&home, &["rel"]), ["release"]);
    assert_eq!(complete(&home, &["get", ""]), ["web"], "of this project");
    assert_eq!(complete(&home, &["check", ""]).len(), 2);
    let mut targets = complete(&home, &["release", ""]);
    targets.sort();
    let mut expected = vec!["web".to_owned(), port(&here)];
    expected.extend([lock_id(&here), lock_id(&there)].into_iter().flatten());
    expected.sort();
    assert_eq!(targets, expected, "another project's by its lock id alone");
    assert_eq!(complete(&home, &["release", "web", "w"]), [""; 0], "each once");
    assert_eq!(complete(&home, &["instance", "remove", ""]), ["editor_a"]);
    assert_eq!(complete(&home, &["release", "--instance=ed"]), ["--instance=editor_a"]);
    assert_eq!(complete(&home, &["allocate", "-s", "stor"]), ["storybook"]);
    assert_eq!(complete(&home, &["check", "--protocol", "u"]), ["udp"]);
    assert_eq!(complete(&home, &["list", "--project", ""]), [":directory"]);
    assert_eq!(complete(&home, &["run", "-n", "web", "--", "npm", "r"]), [":command 4"]);
    assert!(home.styxy_processes().is_empty(), "no daemon was started");

    // A service that does not run keeps its name, and styxy.toml names more.
    home.styxy(&["release", "web"]).ok();
    assert_eq!(complete(&home, &["run", "--name", ""]), ["web"]);
    fs::write(home.work().join("styxy.toml"), "[services.worker]\ntype = \"api\"\n")
        .expect("a file");
    assert_eq!(complete(&home, &["run", "--name", "w"]), ["worker", "web"]);
    assert_eq!(complete(&home, &["run", "-s", "w"]), ["worker"]);
}

#[test]
fn nothing_is_said_where_nothing_can_be_known() {
    let home = Home::new();
    fs::write(home.config_file(), "[service.dev\n").expect("a file");
    assert!(complete(&home, &["allocate", "-s", "d"]).contains(&"dev".to_owned()));
    let mut command = home.styxy_command(&["__complete", "--", "release", ""]);
    let output = finish(command.env_clear().env("HOME", "relative")).ok();
    assert_eq!(output.stderr, "", "{}", output.whole());
    for words in [&["wrong", ""][..], &["get", "web", "--wrong="], &["\u{1b}[31m", "--"], &[]] {
        complete(&home, words);
    }
}

/// A shell at a terminal of its own. `styxy ARGS` in it writes its arguments to a file.
struct Shell<'a> {
    home: &'a Home,
    child: Child,
    shown: Arc<Mutex<String>>,
}

impl<'a> Shell<'a> {
    /// Starts it and waits for its prompt.
    fn start(home: &'a Home, command: &str) -> Self {
        let folder = Path::new(env!("CARGO_BIN_EXE_styxy")).parent().expect("a folder");
        let mut script = home.command("script");
        let path = format!("{}:/usr/bin:/bin", folder.display());
        script.args(["--quiet", "--return", "--command", command, "/dev/null"]);
        script.env("PATH", path).env("TERM", "dumb").env("ZDOTDIR", home.path("home"));
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().expect("script(1)");
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut stdout, sink) = (child.stdout.take().expect("it is piped"), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]);
                sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        let shell = Self { home, child, shown };
        eventually(PATIENCE, || {
            let shown = shell.shown();
            shown.contains("READY").then_some(()).ok_or(shown)
        });
        shell
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Types a line, with tabs, and answers what styxy was called with.
    fn types(&mut self, line: &str) -> String {
        let called = self.home.path("home/called");
        let _ = fs::remove_file(&called);
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(format!("{line}\r").as_bytes()).expect("the shell reads");
        eventually(PATIENCE, || match fs::read_to_string(&called) {
            Ok(text) if text.ends_with('\n') => Ok(text.trim_end().to_owned()),
            _ => Err(self.shown()),
        })
    }
}

impl Drop for Shell<'_> {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Types in a shell what people type. `rc` makes the prompt READY, takes styxy's completions, and
/// has a command `tool` whose only completion is `alpha`.
fn completes(shell: &str, rc_name: &str, rc: &str, command: &str) {
    if !has_program(shell) || !has_program("script") {
        return skip(&format!("{shell} or script is missing"));
    }
    let home = Home::new();
    let owner = owner();
    let pid = owner.pid().to_string();
    home.styxy(&["allocate", "-n", "web", "--pid", &pid]).ok();
    fs::write(home.path("home").join(rc_name), rc).expect("a file");
    fs::create_dir(home.path("work/folder")).expect("a directory");
    let mut shell = Shell::start(&home, command);
    for (line, called) in [
        ("styxy rel\twe\t", "release web"),
        ("styxy allocate -s stor\t", "allocate -s storybook"),
        ("styxy allocate --name=we\t", "allocate --name=web"),
        ("styxy list --project fol\t", "list --project folder"),
        ("styxy run -n web tool al\t", "run -n web tool alpha"),
        ("styxy run -q -- tool al\t", "run -q -- tool alpha"),
    ] {
        let typed = shell.types(line);
        // zsh takes away the slash that it added.
        assert_eq!(typed.trim_end_matches('/'), called, "{line:?}\n{}", shell.shown());
    }
}

const BASH: &str = r#"
PS1='READY> '
complete -W alpha tool
styxy() { printf '%s\n' "$*" >~/new; mv ~/new ~/called; }
source <(command styxy completions bash)
"#;

#[test]
fn tab_completes_in_bash() {
    let package = "/usr/share/bash-completion/bash_completion";
    if !Path::new(package).exists() {
        return skip("bash-completion is missing");
    }
    let rc = format!("source {package}\n{BASH}");
    completes("bash", "rc", &rc, "bash --noprofile --rcfile ~/rc -i");
}

#[test]
fn tab_completes_in_zsh() {
    let rc = r#"
PS1='READY> '
command styxy completions zsh >~/_styxy
fpath=(~ $fpath)
autoload -Uz compinit && compinit -u -D
_tool() { compadd alpha }
compdef _tool tool
styxy() { print -r -- "$*" >~/new; mv ~/new ~/called }
"#;
    completes("zsh", ".zshrc", rc, "zsh -i");
}

#[test]
fn tab_completes_in_fish() {
    let rc = r#"
function fish_prompt; echo 'READY> '; end
complete -c tool -f -a alpha
command styxy completions fish | source
function styxy; echo "$argv" >~/new; mv ~/new ~/called; end
"#;
    completes("fish", "rc", rc, "fish --init-command 'source ~/rc'");
}

/// A person waits for it at each TAB.
#[test]
fn an_answer_takes_milliseconds_with_a_thousand_allocations() {
    let home = Home::alone(if full() { 1200 } else { 160 });
    let _daemon = home.daemon();
    let owner = owner();
    let pid = owner.pid().to_string();
    let (first, last) = home.dev_range();
    let count = (last - first) / 60 * 60;
    for _ in 0..count / 60 {
        home.styxy(&["allocate", "--count", "60", "--pid", &pid]).ok();
    }
    let timed = || {
        let start = std::time::Instant::now();
        assert!(complete(&home, &["check", ""]).len() >= usize::from(count));
        start.elapsed()
    };
    let best = (0..10).map(|_| timed()).min().expect("ten");
    assert!(best.as_millis() < 50, "{best:?}");
}
