//! The command line, as clap sees it.

mod deferred;
mod values;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use clap::error::{Error, ErrorKind};
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub(super) use deferred::Deferred;
use values::{Transport, key_value, lease, loopback, port_range, variable};

/// The service type of whoever names none.
pub(super) const DEFAULT_TYPE: &str = "dev";

/// Give every server a port of its own
#[derive(Debug, Parser)]
#[command(
    name = "styxy",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Examples:
  styxy run -- npm run dev                start a server on a port that is free and stays its own
  PORT=$(styxy allocate -s test)          a port for a script
  styxy list                              who has which port"
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Cli {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    ///
    /// What is to be printed instead: a help text, the version or what is wrong.
    pub(super) fn of(line: &[OsString]) -> Result<Self, Error> {
        let told = Self::try_parse_from(line);
        let helps = |kind| {
            use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
            matches!(kind, DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand)
        };
        if told.as_ref().is_err_and(|error| helps(error.kind())) {
            // It may tell what each command is for.
            let mut all = Self::command();
            all.build();
            return Self::from_arg_matches(&all.try_get_matches_from(line)?);
        }
        told
    }
}

/// The options that every command has.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct Global {
    /// Print the daemon's answer as JSON
    #[arg(long, global = true, display_order = 900)]
    pub(super) json: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true, display_order = 901)]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Run(Deferred<Run>),
    Allocate(Deferred<Allocate>),
    Get(Deferred<Get>),
    Wait(Deferred<Wait>),
    Release(Deferred<Release>),
    Check(Deferred<Check>),
    Suggest(Deferred<Suggest>),
    List(Deferred<List>),
    Watch(Deferred<Watch>),
    Scan(Deferred<Scan>),
    Env(Deferred<Env>),
    #[command(subcommand)]
    Instance(Deferred<Instance>),
    Cleanup(Deferred<Cleanup>),
    #[command(subcommand)]
    Daemon(Deferred<Daemon>),
    #[command(subcommand)]
    Config(Deferred<Config>),
    /// Check all that Styxy needs, and say what to do
    ///
    /// A line for each check: ok, warn or fail. It starts no daemon and changes nothing.
    #[command(after_help = "Examples:
  styxy doctor
  styxy doctor --json | jq '.[] | select(.status != \"ok\")'

Exit codes: 0 nothing fails, 1 a check fails.")]
    Doctor,
    Completions(Deferred<Completions>),
    #[command(name = "__complete", hide = true)]
    Complete(Deferred<Complete>),
}

/// Run a command with a port of its own
#[derive(Debug, Args)]
#[command(after_help = "\
The command finds the port in PORT and STYXY_PORT, and instead of {port} in its arguments. A known
program that ignores PORT, such as vite, also behind npm run, is told by arguments or by a variable
of its own. The port is free again when the command ends.

Examples:
  styxy run -- npm run dev
  styxy run -n api -s api -- cargo run -- --listen 127.0.0.1:{port}
  styxy run -n web --reuse -- npm run dev       prints the URL if web runs already

Exit code: the command's; 126 if it can't be executed, 127 if it isn't found.")]
pub(super) struct Run {
    /// Name of the service within this project; it keeps its port from run to run
    #[arg(short, long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// Service type: dev, test, api, … (styxy config show), or a service of styxy.toml
    /// [default: the known program's, or dev]
    #[arg(short, long, value_name = "TYPE")]
    pub(super) service: Option<String>,
    /// Port to try first
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// If that name runs already, print its URL and exit
    #[arg(long, conflicts_with = "another")]
    pub(super) reuse: bool,
    /// If that name runs already, start a second one
    #[arg(long)]
    pub(super) another: bool,
    /// One more port for the command, under a name of its own: in NAME_PORT and {port:NAME}
    #[arg(long, value_name = "NAME")]
    pub(super) also: Vec<String>,
    /// Environment variable for the port, instead of PORT
    #[arg(long, value_name = "VAR", value_parser = variable)]
    pub(super) env: Option<String>,
    /// Tell the program its port in PORT alone: add no arguments and set no other variables for it
    #[arg(long)]
    pub(super) no_inject: bool,
    #[command(flatten)]
    pub(super) required: RequireOption,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// Whether a port that is not reserved will do.
#[derive(Debug, Args)]
pub(super) struct RequireOption {
    /// Fail with exit code 69 rather than go on without a reservation
    #[arg(long, env = "STYXY_REQUIRE", hide_env = true, action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub(super) require: bool,
}

/// Allocate a port and print it
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(after_help = "\
The port stays allocated while the calling shell lives, for 10 minutes at least, and then for as long
as a server listens on it.

Examples:
  PORT=$(styxy allocate -s dev)
  eval \"$(styxy allocate -n web -n api --shell)\"      sets WEB_PORT and API_PORT
  styxy allocate -p 8080 --exact --pid $$ --wait 30s

Exit codes: 1 port unavailable, 75 no port is free in the range.")]
pub(super) struct Allocate {
    /// Service type: dev, test, api, … (styxy config show), or a service of styxy.toml
    /// [default: the project's, or dev]
    #[arg(short, long, value_name = "TYPE")]
    pub(super) service: Option<String>,
    /// Name of the service within its project; several names are all allocated or none
    /// [default: the directory's in a monorepo, else none]
    #[arg(short, long = "name", value_name = "NAME")]
    pub(super) names: Vec<String>,
    /// How many ports, all or none
    #[arg(long, value_name = "N", conflicts_with = "names",
          value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(super) count: Option<u8>,
    /// Port to try first
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// Fail rather than take another port than --port
    #[arg(long, requires = "port")]
    pub(super) exact: bool,
    /// Transport protocol
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(super) protocol: Transport,
    /// Process that owns the port: it is free again when that process ends
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pid: Option<u32>,
    /// How long to keep the port while nothing else does, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = lease)]
    pub(super) lease: Option<u64>,
    #[command(flatten)]
    pub(super) instance: InstanceOption,
    /// Project directory, instead of the working directory's project
    #[arg(long, value_name = "DIR")]
    pub(super) project: Option<PathBuf>,
    /// How long to try again while no port can be had, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(super) wait: Option<Duration>,
    /// Print export commands for a shell to eval
    #[arg(long, conflicts_with_all = ["json", "url"])]
    pub(super) shell: bool,
    /// Print http://localhost:PORT
    #[arg(long)]
    pub(super) url: bool,
    /// Say which port it would be, and reserve nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// The registered client that a command works for.
#[derive(Debug, Args)]
pub(super) struct InstanceOption {
    /// Instance that asks
    #[arg(long = "instance", value_name = "ID", env = "STYXY_INSTANCE", hide_env_values = true)]
    instance: Option<String>,
}

impl InstanceOption {
    /// Its id. An empty `STYXY_INSTANCE` is none.
    pub(super) fn id(&self) -> Option<&str> {
        self.instance.as_deref().filter(|id| !id.is_empty())
    }
}

/// Print the port of a service of this project: the one it has or, if it doesn't run, will get
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  curl localhost:$(styxy get api)/health
  xdg-open $(styxy get web --url)

Exit code: 1 if this project has no such service.")]
pub(super) struct Get {
    /// Name of the service
    pub(super) name: String,
    /// Print http://localhost:PORT
    #[arg(long)]
    pub(super) url: bool,
}

/// Wait until servers listen, and print their URLs
#[derive(Debug, Args)]
#[command(after_help = "\
Only the allocation's own server counts, not just anybody on that port. What isn't allocated yet is
waited for too; what ends without having listened ends the wait. A name is one of this project.

Examples:
  styxy wait web
  styxy wait web api --timeout 2m && npm test

Exit code: 1 if one doesn't listen in time, with who listens instead, or has ended.")]
pub(super) struct Wait {
    /// What to wait for: names, ports, lock ids
    #[arg(required = true, value_name = "NAME|PORT|LOCK_ID")]
    pub(super) targets: Vec<String>,
    /// How long to wait, such as 30s
    #[arg(long, value_name = "DURATION", default_value = "30s",
          value_parser = humantime::parse_duration)]
    pub(super) timeout: Duration,
}

/// Release allocations
#[derive(Debug, Args)]
#[command(after_help = "\
A name or port means what this project or instance has; a lock id always works.

Examples:
  styxy release web
  styxy release 3000 3001
  styxy release --instance editor_a 8000

Exit codes: 1 nothing to release, 77 it belongs to another project.")]
pub(super) struct Release {
    /// What to release: names, ports, lock ids
    #[arg(required = true, value_name = "NAME|PORT|LOCK_ID")]
    pub(super) targets: Vec<String>,
    #[command(flatten)]
    pub(super) instance: InstanceOption,
}

/// Tell whether ports are free, and who has them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy check 3000
  styxy check 5432 6379
  styxy check 53 --protocol udp

Exit codes: 0 all are free, 1 one is taken.")]
pub(super) struct Check {
    /// The ports
    #[arg(required = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) ports: Vec<u16>,
    /// Transport protocol
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(super) protocol: Transport,
}

/// Print ports that are free now; nothing is reserved
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy suggest
  styxy suggest api --count 3
  styxy suggest -p 3000 --json | jq '.reasons'")]
pub(super) struct Suggest {
    /// Service type: dev, test, api, … (styxy config show)
    #[arg(value_name = "TYPE", default_value = DEFAULT_TYPE)]
    pub(super) service_type: String,
    /// Port to look close to
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) port: Option<u16>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) count: u16,
    /// Print http://localhost:PORT
    #[arg(long)]
    pub(super) url: bool,
}

/// List the allocations
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy list
  styxy list --here
  styxy list --watch
  styxy list --json | jq '.allocations[].port'")]
pub(super) struct List {
    /// Only those of the project in this directory
    #[arg(long, value_name = "DIR")]
    pub(super) project: Option<PathBuf>,
    /// Only those of this project
    #[arg(long, conflicts_with = "project")]
    pub(super) here: bool,
    /// Go on, and show it again whenever it changes
    #[arg(long)]
    pub(super) watch: bool,
}

/// Print what happens, a line each, until interrupted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy watch
  styxy watch --json | jq 'select(.event == \"conflict\")'")]
pub(super) struct Watch {}

/// List the ports that are in use, allocated or not, and who uses them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy scan
  styxy scan 3000-9999
  styxy scan 5432 --json")]
pub(super) struct Scan {
    /// The ports: one, or first-last
    #[arg(default_value = "1-65535", value_parser = port_range)]
    pub(super) range: (u16, u16),
}

/// Print the ports of this project's services as variables
#[derive(Debug, Args)]
#[command(after_help = "\
The services are those of styxy.toml at the project's root or, without that file, those that ran here
under a name. Their ports are the same in every shell and tomorrow; they hold nothing, and
`styxy run -n NAME` uses them.

Examples:
  eval \"$(styxy env --shell)\"
  styxy env --write .env.ports && docker compose --env-file .env.ports up

Exit codes: 1 no services are known, 78 styxy.toml is wrong.")]
pub(super) struct Env {
    /// Print export commands for a shell to eval
    #[arg(long, conflicts_with_all = ["dotenv", "json"])]
    pub(super) shell: bool,
    /// Print NAME=PORT lines for compose, direnv and dotenv (the default)
    #[arg(long, conflicts_with = "json")]
    pub(super) dotenv: bool,
    /// Put it into a file that styxy env may replace, when something changed
    #[arg(long, value_name = "FILE")]
    pub(super) write: Option<PathBuf>,
    #[command(flatten)]
    pub(super) required: RequireOption,
}

/// Manage instances: registered clients such as agents and editors
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  export STYXY_INSTANCE=$(styxy instance register --pid $$)
  styxy instance heartbeat
  styxy instance list")]
pub(super) enum Instance {
    /// Register an instance and print its id
    Register(Register),
    /// Say that an instance lives; without a process it has to be said every 30 seconds
    Heartbeat(InstanceId),
    /// List the instances
    List,
    /// Remove an instance, and release what nothing else holds
    Remove(InstanceId),
}

/// What `instance register` takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  export STYXY_INSTANCE=$(styxy instance register --pid $$)
  styxy instance register editor_a --metadata branch=main")]
pub(super) struct Register {
    /// Id of the instance, instead of a new one
    #[arg(env = "STYXY_INSTANCE", hide_env_values = true)]
    pub(super) id: Option<String>,
    /// Process that proves that the instance lives; without it heartbeats do
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pid: Option<u32>,
    /// What to show beside its id
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(super) metadata: Vec<(String, String)>,
}

/// An instance that must be named, by argument or environment.
#[derive(Debug, Args)]
pub(super) struct InstanceId {
    /// Id of the instance
    #[arg(env = "STYXY_INSTANCE", hide_env_values = true, required = true,
          value_parser = NonEmptyStringValueParser::new())]
    pub(super) id: String,
}

/// Release what nothing holds any more, as the daemon does by itself
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy cleanup
  styxy cleanup --force --dry-run     what --force would release of this project or instance
  styxy cleanup --force --all         everything, of every project")]
pub(super) struct Cleanup {
    /// Release also what is held: everything of this instance, or else of this project
    #[arg(long)]
    pub(super) force: bool,
    /// With --force: of every project and instance
    #[arg(long, requires = "force")]
    pub(super) all: bool,
    /// Say what would be released, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) instance: InstanceOption,
}

/// Manage the daemon; it starts by itself when it is needed
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  styxy daemon status
  styxy daemon restart
  styxy daemon install && systemctl --user enable --now styxy.socket
  styxy daemon run --listen 127.0.0.1:9877 --socket /tmp/styxy.sock")]
pub(super) enum Daemon {
    /// Start the daemon, unless it runs
    Start,
    /// Stop the daemon, and its sockets where systemd has them
    Stop(DaemonStop),
    /// Stop the daemon and start it again
    Restart,
    /// Tell whether the daemon runs; exit code 1 if it doesn't
    Status,
    /// Be the daemon, in the foreground
    Run(DaemonRun),
    /// Write systemd units for this user, with this program's path
    ///
    /// They are written to $XDG_CONFIG_HOME/systemd/user, where a package isn't needed for them,
    /// and neither enabled nor started. A file that styxy didn't write is never overwritten.
    Install,
    /// Stop and disable the units that `install` wrote, and remove them
    Uninstall,
}

/// What `daemon stop` takes.
#[derive(Debug, Args)]
pub(super) struct DaemonStop {
    /// Only a daemon that systemd did not start; the units stay as they are
    #[arg(long)]
    pub(super) background: bool,
}

/// What `daemon run` takes.
#[derive(Debug, Args)]
pub(super) struct DaemonRun {
    /// TCP address to serve, instead of the configuration's
    #[arg(long, value_name = "ADDR:PORT", value_parser = loopback)]
    pub(super) listen: Option<SocketAddr>,
    /// Unix socket to serve, instead of the one in the runtime directory
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// A client started it: leave its session and descriptors
    #[arg(long, hide = true)]
    pub(super) background: bool,
}

/// Look at the configuration
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  styxy config show
  styxy config check
  $EDITOR \"$(styxy config path)\"")]
pub(super) enum Config {
    /// Print the configuration in force: the built-in one and what the file changes
    Show,
    /// Check the configuration file; exit code 78 if something is wrong in it
    Check,
    /// Print the path of the configuration file
    Path,
}

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy completions bash > ~/.local/share/bash-completion/completions/styxy
  styxy completions fish > ~/.config/fish/completions/styxy.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

/// Print what can stand at the end of a command line, for the completion scripts
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  styxy __complete -- rel
  styxy __complete -- release ''")]
pub(super) struct Complete {
    /// The words behind `styxy`, up to the cursor; the last one may be empty
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WORD")]
    pub(super) words: Vec<OsString>,
}

#[cfg(test)]
mod tests;
