//! What a `styxy run` asks for, before anybody is asked.

use super::super::args::{DEFAULT_TYPE, Run};
use super::super::context::instance_here;
use super::super::failure::{Exit, Failed};
use super::super::here::Here;
use super::super::owner::{Owner, new_lock_id};
use super::exec::{Mark, marks};
use crate::api::{AllocateRequest, IfRunning};
use crate::config::{Config, nearest};
use crate::project::port_variable_of;
use crate::project::recognise::{Recognised, Runs};

/// What runs beside a service and in its directory, and is not that service.
const BESIDE: [&str; 2] = ["storybook", "test"];

/// One port that is asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The request. This process is the owner: it becomes the command.
    pub(super) request: AllocateRequest,
    /// The variable that carries the port of a service with a name.
    pub(super) variable: Option<String>,
}

/// What a run asks for.
#[derive(Debug)]
pub(super) struct Plan {
    /// The command's own port first, if it has one; then those beside it.
    pub(super) wanted: Vec<Wanted>,
    /// The first is the command's own.
    pub(super) has_own: bool,
    /// The variable that carries the command's own port.
    pub(super) variable: Option<String>,
    /// A type was asked for, in words or by styxy.toml.
    pub(super) is_typed: bool,
    /// The program that the command runs, where it is known.
    pub(super) program: Option<Recognised>,
    /// What the command is called, if it starts several programs.
    pub(super) several: Option<&'static str>,
}

impl Plan {
    /// What `args` ask for, typed `here`, for a command that `runs` that. What starts several
    /// programs must not give them one port: each service of styxy.toml has its own, and PORT is
    /// set only if that was asked for, or if the command makes a PORT for each from it.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`]: a `{port:NAME}` of a service that is not known.
    pub(super) fn new(
        args: &Run,
        here: &Here,
        config: &Config,
        runs: Option<Runs>,
    ) -> Result<Self, Failed> {
        let (program, several) = match runs {
            Some(Runs::Program(program)) => (Some(program), None),
            Some(Runs::Several(name)) => (None, Some(name).filter(|_| !args.no_inject)),
            None => (None, None),
        };
        let mut meant = here.meant(args.service.as_deref(), args.name.as_deref(), config);
        let is_typed = meant.service_type.is_some();
        if let Some(tool) = program.as_ref().map(Recognised::service_type)
            && BESIDE.contains(&tool)
            && args.service.is_none()
            && !meant.is_named
        {
            meant = here.meant(Some(tool), None, config);
        }
        let recognised = program.as_ref().map_or(DEFAULT_TYPE, Recognised::service_type);
        let service_type = meant.service_type.unwrap_or_else(|| recognised.to_owned());
        let is_own_wanted = args.port.is_some()
            || args.env.is_some()
            || meant.is_named
            || all_marks(args).any(|mark| mark == Mark::Own);
        let has_own = several.is_none() || is_own_wanted;
        let mut plan = Self {
            wanted: Vec::new(),
            has_own,
            variable: args.env.clone().or_else(|| several.is_none().then(|| "PORT".to_owned())),
            is_typed,
            program,
            several,
        };
        if has_own {
            let name = meant.name.or_else(|| here.package_name(&service_type));
            // `--reuse` wants no more of what runs than its URL, and the refusal has that.
            let is_single = meant.is_named && !args.another;
            let if_running = if is_single { IfRunning::Refuse } else { IfRunning::Another };
            plan.add(here, name.as_deref(), &service_type, if_running);
            let given = || plan.program.as_ref()?.given_port();
            plan.wanted[0].request.preferred_port = args.port.or_else(given);
        }
        let beside = args.also.iter().map(String::as_str);
        let declared = here.services.all().iter().map(|service| service.name.as_str());
        let is_row = plan.program.as_ref().is_some_and(Recognised::starts_row) && !args.no_inject;
        let declared = declared.filter(|_| several.is_some() || is_row);
        for name in beside.chain(declared) {
            if !plan.wanted.iter().any(|it| it.request.service_name.as_deref() == Some(name)) {
                let declared = here.services.named(name).map(|it| it.service_type.as_str());
                plan.add(here, Some(name), declared.unwrap_or(&service_type), IfRunning::Another);
            }
        }
        plan.check_marks(args, here)?;
        Ok(plan)
    }

    fn add(&mut self, here: &Here, name: Option<&str>, service_type: &str, if_running: IfRunning) {
        let mut request = AllocateRequest {
            service_type: service_type.to_owned(),
            service_name: name.map(str::to_owned),
            instance_id: instance_here(),
            project_path: here.project.clone(),
            avoid_ports: here.ports_of_others(name),
            lock_id: Some(new_lock_id()),
            if_running,
            ..AllocateRequest::default()
        };
        Owner::this_process().fill(&mut request);
        let declared = |name| here.services.named(name).map(|it| it.variable.clone());
        let variable = name.map(|name| declared(name).unwrap_or_else(|| port_variable_of(name)));
        self.wanted.push(Wanted { request, variable });
    }

    /// A mark that stands for no port is a misspelling.
    fn check_marks(&self, args: &Run, here: &Here) -> Result<(), Failed> {
        let wanted = self.wanted.iter().filter_map(|it| it.request.service_name.as_deref());
        let declared = here.services.all().iter().map(|it| it.name.as_str());
        let known: Vec<&str> = wanted.chain(declared).collect();
        let unknown = all_marks(args).find_map(|mark| match mark {
            Mark::Of(name) if !known.iter().any(|it| it.as_bytes() == name) => Some(name),
            _ => None,
        });
        let Some(name) = unknown else { return Ok(()) };
        let name = String::from_utf8_lossy(name);
        let failed =
            Failed::new(Exit::Usage, format!("{{port:{name}}}: no service '{name}' is known here"));
        Err(match nearest(&name, known) {
            Some(word) => failed.next(format!("{{port:{word}}}")),
            None => failed.next(format!("--also {name}, or name it in styxy.toml")),
        })
    }
}

/// The marks of the command's arguments.
fn all_marks(args: &Run) -> impl Iterator<Item = Mark<'_>> {
    args.command.iter().skip(1).flat_map(|argument| marks(argument))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::args::{Cli, Command, Deferred};
    use super::*;
    use crate::project::Services;

    fn plan(line: &[&str], orchestrator: Option<&'static str>) -> Result<Plan, Failed> {
        plan_in("", line, orchestrator.map(Runs::Several))
    }

    fn plan_in(directory: &str, line: &[&str], runs: Option<Runs>) -> Result<Plan, Failed> {
        let config = Config::built_in();
        let line = [&["styxy", "run"], line].concat();
        let args = match Cli::try_parse_from(line).expect("it parses").command {
            Command::Run(Deferred(args)) => args,
            other => panic!("{other:?}"),
        };
        let text = "[services.web]\nport = 5173\ndir = \"web\"\n[services.api]\ntype = \"api\"\n\
                    env = \"API\"";
        let file = std::path::Path::new("styxy.toml");
        let (services, wrong) = Services::parse(file, text, &config);
        assert_eq!(wrong, []);
        let project = "/home/ada/src/shop";
        let directory = std::path::Path::new(project).join(directory);
        let project = Some(project.to_owned());
        let here = Here { directory, project, services, ..Here::default() };
        Plan::new(&args, &here, &config, runs)
    }

    /// Type, name and variable of a port.
    type Told<'a> = (&'a str, Option<&'a str>, Option<&'a str>);

    fn told(plan: &Plan) -> Vec<Told<'_>> {
        let wanted = plan.wanted.iter();
        wanted
            .map(|Wanted { request, variable }| {
                let AllocateRequest { service_type, service_name, .. } = request;
                (service_type.as_str(), service_name.as_deref(), variable.as_deref())
            })
            .collect()
    }

    #[test]
    fn only_a_named_service_is_refused_when_it_runs_already() {
        let table: [(&[&str], IfRunning); 6] = [
            (&["true"], IfRunning::Another),
            (&["--reuse", "true"], IfRunning::Another),
            (&["-n", "web", "true"], IfRunning::Refuse),
            (&["-s", "web", "true"], IfRunning::Refuse),
            (&["-n", "web", "--reuse", "true"], IfRunning::Refuse),
            (&["-n", "web", "--another", "true"], IfRunning::Another),
        ];
        for (line, expected) in table {
            let plan = plan(line, None).expect("a plan");
            assert_eq!(plan.wanted[0].request.if_running, expected, "{line:?}");
        }
    }

    #[test]
    fn a_service_is_what_styxy_toml_says_unless_another_type_is_typed() {
        let table: [(&[&str], Told<'_>); 5] = [
            (&["true"], ("dev", None, None)),
            (&["-s", "docs", "true"], ("docs", None, None)),
            (&["-n", "api", "true"], ("api", Some("api"), Some("API"))),
            (&["-n", "api", "-s", "proxy", "true"], ("proxy", Some("api"), Some("API"))),
            (&["-n", "hmr", "true"], ("dev", Some("hmr"), Some("HMR_PORT"))),
        ];
        for (line, expected) in table {
            assert_eq!(told(&plan(line, None).expect("a plan")), [expected], "{line:?}");
        }
        // A type and a service may have one name: then it is the type.
        let api = plan(&["-s", "api", "true"], None).expect("a plan");
        assert_eq!(told(&api), [("api", None, None)]);
    }

    #[test]
    fn the_ports_beside_are_asked_for_in_the_same_breath() {
        let line = ["-n", "web", "--also", "hmr", "--also", "api", "--also", "hmr", "true"];
        let plan = plan(&line, None).expect("a plan");
        let hmr = ("dev", Some("hmr"), Some("HMR_PORT"));
        let expected =
            [("dev", Some("web"), Some("WEB_PORT")), hmr, ("api", Some("api"), Some("API"))];
        assert_eq!(told(&plan), expected);
        assert_eq!(plan.variable.as_deref(), Some("PORT"));
    }

    #[test]
    fn what_starts_several_programs_gets_a_port_for_each_and_none_for_all() {
        let both = [("dev", Some("web"), Some("WEB_PORT")), ("api", Some("api"), Some("API"))];
        let turbo = plan(&["turbo", "dev"], Some("turbo")).expect("a plan");
        assert_eq!((told(&turbo), turbo.has_own, &turbo.variable), (both.to_vec(), false, &None));
        let named = plan(&["-n", "web", "turbo", "dev"], Some("turbo")).expect("a plan");
        assert_eq!((told(&named), named.has_own, &named.variable), (both.to_vec(), true, &None));
        let env = plan(&["--env", "P", "turbo", "dev", "{port}"], Some("turbo")).expect("a plan");
        assert_eq!((env.wanted.len(), env.has_own), (3, true));
        assert_eq!(env.variable.as_deref(), Some("P"));
        let plain = plan(&["--no-inject", "turbo", "dev"], Some("turbo")).expect("a plan");
        assert_eq!(
            (told(&plain), plain.variable.as_deref()),
            (vec![("dev", None, None)], Some("PORT"))
        );
    }

    #[test]
    fn what_starts_a_row_of_programs_gets_the_first_port_and_one_for_each_service() {
        let words = ["foreman", "start"].map(Into::into);
        let runs = crate::project::recognise::of_command(&words, std::path::Path::new("/"), None);
        let plan = plan_in("", &["foreman", "start"], runs).expect("a plan");
        let services = [("dev", Some("web"), Some("WEB_PORT")), ("api", Some("api"), Some("API"))];
        assert_eq!(told(&plan), [&[("dev", None, None)], &services[..]].concat());
        assert_eq!((plan.has_own, plan.variable.as_deref()), (true, Some("PORT")));
    }

    #[test]
    fn a_tool_in_a_services_directory_is_not_that_service() {
        let program = |command: &[&str]| {
            let words: Vec<_> = command.iter().map(Into::into).collect();
            crate::project::recognise::of_command(&words, std::path::Path::new("/"), None)
        };
        let web = ("dev", Some("web"), Some("WEB_PORT"));
        let table: [(&[&str], Told<'_>); 4] = [
            (&["vite"], web),
            (&["uvicorn", "shop:app"], web),
            (&["storybook", "dev"], ("storybook", None, None)),
            (&["-n", "web", "storybook", "dev"], web),
        ];
        for (line, expected) in table {
            let command = line.iter().position(|word| !["-n", "web"].contains(word));
            let runs = program(&line[command.expect("a command")..]);
            assert!(runs.is_some(), "{line:?}");
            let plan = plan_in("web/src", line, runs).expect("a plan");
            assert_eq!(told(&plan), [expected], "{line:?}");
        }
    }

    #[test]
    fn a_mark_of_an_unknown_service_is_wrong_usage() {
        assert!(plan(&["true", "{port:api}", "{port:web}", "{port}"], None).is_ok());
        assert!(plan(&["--also", "hmr", "true", "{port:hmr}"], None).is_ok());
        let failed = plan(&["true", "{port:apii}"], None).expect_err("a misspelling");
        assert_eq!(failed.exit, Exit::Usage);
    }
}
