//! What is recognised, and what is not.

mod projects;

use std::fs;

use super::*;

/// A directory with those files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, text) in files {
        let place = directory.path().join(name);
        let is_directory = name.ends_with('/');
        let parent = if is_directory { Some(place.as_path()) } else { place.parent() };
        fs::create_dir_all(parent.expect("a parent")).expect("mkdir");
        if !is_directory {
            fs::write(place, text).expect("write");
        }
    }
    directory
}

/// The program that a command runs, if it is one.
fn program_of(line: &str, place: &Path) -> Option<Recognised> {
    match of_command(&words(line), place, Some(place))? {
        Runs::Program(program) => Some(program),
        Runs::Several(_) => None,
    }
}

fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

/// The command line with what is handed over, as a person would type it.
fn typed(handed: &HandOver) -> String {
    let variables = handed.variables.iter().map(|(name, value)| format!("{name}={value}"));
    let words = handed.words.iter().map(|word| word.to_str().expect("UTF-8").to_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// A package.json with those scripts.
fn package(scripts: &str) -> tempfile::TempDir {
    directory(&[("package.json", &format!("{{\"scripts\": {{{scripts}}}}}"))])
}

/// What a person is told when that line of a package with those scripts is told port 8001.
fn said(scripts: &str, line: &str) -> (Option<String>, Option<u16>) {
    let directory = package(scripts);
    let found = program_of(line, directory.path());
    let found = found.unwrap_or_else(|| panic!("{line}: not recognised"));
    (found.hand_over(&words(line), 8001).said, found.given_port())
}

#[test]
fn a_person_is_told_what_was_added_and_why_not() {
    let table = [
        ("", "vite", Some("--port 8001 --strictPort added for Vite"), None),
        (
            r#""dev": "vite""#,
            "npm run dev",
            Some("-- --port 8001 --strictPort added for Vite"),
            None,
        ),
        ("", "flask run", Some("FLASK_RUN_PORT=8001 set for Flask"), None),
        ("", "next dev", None, None),
        (
            "",
            "vite --port 3000",
            Some("the command gives Vite another port: --port 3000"),
            Some(3000),
        ),
        (
            "",
            "vite --port=3000",
            Some("the command gives Vite another port: --port=3000"),
            Some(3000),
        ),
        ("", "next dev -p3000", Some("the command gives Next.js another port: -p3000"), Some(3000)),
        (
            "",
            "gunicorn -b a.sock",
            Some("the command gives Gunicorn another port: -b a.sock"),
            None,
        ),
        ("", "vite --port {port}", None, None),
        ("", "vite --base {port}", None, None),
        (r#""dev": "vite --port $PORT""#, "npm run dev", None, None),
        (r#""dev": "PORT=${PORT:-3000} next dev""#, "npm run dev", None, None),
        (
            r#""dev": "astro dev --port 3000""#,
            "npm run dev",
            Some("script 'dev' gives Astro another port: --port 3000"),
            Some(3000),
        ),
        (
            r#""dev": "vite --port 3000""#,
            "npm run dev",
            Some("-- --port 8001 --strictPort added for Vite, instead of its script's --port 3000"),
            None,
        ),
        (
            r#""dev": "tsc && vite""#,
            "npm run dev",
            Some("Vite is not told its port: script 'dev' is several commands"),
            None,
        ),
        ("", "vite --host -- here", Some("Vite is not told its port: a -- ends the options"), None),
        (r#""dev": "styxy run -- vite""#, "npm run dev", None, None),
        (
            r#""dev": "PORT=3000 react-scripts start""#,
            "npm run dev",
            Some("script 'dev' gives Create React App another port: PORT=3000"),
            Some(3000),
        ),
        (
            "",
            "firebase emulators:start --only auth",
            Some(
                "Firebase Emulator Suite is not told its port: its ports are in firebase.json, and \
                 a second one has the same",
            ),
            None,
        ),
    ];
    for (scripts, line, expected, port) in table {
        let (found, given) = said(scripts, line);
        assert_eq!((found.as_deref(), given), (expected, port), "{scripts}: {line}");
    }
}

#[test]
fn of_a_procfile_with_several_programs_one_port_is_kept_and_that_is_said() {
    let told = "-p 8001 added for foreman";
    let more = format!("{told}; of the Procfile's programs only the first one's PORT is kept");
    for (procfile, expected) in [
        ("web: bin/rails server\n", told),
        ("# web: old\nweb: bin/rails server\n\n", told),
        ("web: bin/rails server\ncss-2: bin/watch\n", &more),
    ] {
        let directory = directory(&[("Procfile", procfile)]);
        let found = program_of("foreman start", directory.path()).expect("it is known");
        let handed = found.hand_over(&words("foreman start"), 8001);
        assert_eq!(typed(&handed), "foreman start -p 8001");
        assert_eq!(handed.said.as_deref(), Some(expected), "{procfile}");
    }
    // One of another name may have any number.
    assert_eq!(said("", "foreman start -f Procfile.dev").0.as_deref(), Some(&*more));
    assert_eq!(said("", "overmind s").0, Some(more.replace("foreman", "overmind")));
    assert_eq!(program_of("foreman run rake", Path::new("/")), None);
}

#[test]
fn wrappers_and_scripts_are_looked_through() {
    let scripts = r#""dev": "npm run inner -- --host", "inner": "cross-env A=1 dotenv -- vite",
                     "web": "cd web && npm run dev", "loop": "npm run loop", "bin": "vite""#;
    let directory = package(scripts);
    fs::create_dir(directory.path().join("web")).expect("mkdir");
    fs::write(directory.path().join("web/package.json"), r#"{"scripts": {"dev": "next dev"}}"#)
        .expect("write");
    let program = |line: &str| program_of(line, directory.path()).map(|found| found.program());
    for (line, expected) in [
        ("npm run dev", Some("Vite")),
        ("env A=1 nohup time -p npm run inner", Some("Vite")),
        ("npm run web", Some("Next.js")),
        ("npm --prefix web run dev", Some("Next.js")),
        ("pnpm -C web dev", Some("Next.js")),
        ("npm run loop", None),
        ("npm run missing", None),
        ("pnpm missing", None),
        ("corepack pnpm bin", Some("Vite")),
        ("styxy run -n web -- vite", Some("Vite")),
        ("styxy list", None),
        ("env", None),
        ("npm", None),
    ] {
        assert_eq!(program(line), expected, "{line}");
    }
    let handed = |line: &str| {
        let found = program_of(line, directory.path()).expect("it is recognised");
        typed(&found.hand_over(&words(line), 8001))
    };
    assert_eq!(handed("npm run dev"), "npm run dev -- --port 8001 --strictPort");
    assert_eq!(handed("npm run inner"), "npm run inner -- --port 8001 --strictPort");
}

#[test]
fn a_script_that_only_a_shell_can_read_leaves_it_to_the_dependencies() {
    let directory = directory(&[(
        "package.json",
        r#"{"scripts": {"dev": "node build.js & vite", "serve": "node server.js"},
            "dependencies": {"fastify": "5"}}"#,
    )]);
    for line in ["npm run dev", "npm run serve", "node --watch server.js", "bun server.ts"] {
        let found = program_of(line, directory.path()).expect("it is recognised");
        assert_eq!((found.program(), found.service_type()), ("Fastify", "api"), "{line}");
        assert_eq!(found.why(), "package.json depends on fastify");
        assert_eq!(typed(&found.hand_over(&words(line), 8001)), format!("PORT=8001 {line}"));
    }
}

#[test]
fn the_nearest_package_counts_and_nothing_above_the_root() {
    let tree = directory(&[
        ("package.json", r#"{"devDependencies": {"vite": "8"}}"#),
        (
            "shop/package.json",
            r#"{"scripts": {"dev": "turbo dev"}, "devDependencies": {"turbo": "2"}}"#,
        ),
        ("shop/web/package.json", r#"{"dependencies": {"next": "16"}}"#),
        ("shop/web/src/page/", ""),
        ("shop/lib/package.json", r#"{"name": "lib"}"#),
        ("shop/docs/", ""),
    ]);
    let root = tree.path().join("shop");
    let program = |place: &str| of_directory(&root.join(place), Some(&root)).map(|it| it.program());
    assert_eq!(program("web/src/page"), Some("Next.js"));
    assert_eq!(program("lib"), None, "the root's dependencies are not a package's own");
    assert_eq!(program("docs"), None);
    assert_eq!(of_directory(&root.join("docs"), None), None);
}

#[test]
fn of_many_tools_the_scripts_say_which_one_serves() {
    let both = r#""devDependencies": {"vite": "8", "storybook": "10", "vitest": "4"}"#;
    for (scripts, expected) in [
        (r#""dev": "vite", "test": "vitest""#, "Vite"),
        (r#""dev": "wrangler dev""#, "Wrangler"),
        (r#""start": "storybook dev -p 6006""#, "Storybook"),
        (r#""dev": "node dev.js""#, "Vite"),
        ("", "Vite"),
    ] {
        let text = format!("{{\"scripts\": {{{scripts}}}, {both}}}");
        let directory = directory(&[("package.json", &text)]);
        let found = of_directory(directory.path(), None).expect("it is recognised");
        assert_eq!(found.program(), expected, "{scripts}");
    }
}

#[test]
fn what_cannot_be_read_is_not_there() {
    for text in ["", "{", "[]", "{\"scripts\": 1}", "{\"scripts\": {\"dev\": {}}}"] {
        let directory = directory(&[("package.json", text), ("Gemfile/", "")]);
        assert_eq!(of_command(&words("npm run dev"), directory.path(), None), None, "{text}");
        assert_eq!(of_directory(directory.path(), None), None, "{text}");
    }
}

#[test]
fn orchestrators_are_known_through_scripts() {
    let directory = directory(&[
        (
            "package.json",
            r#"{"scripts": {"dev": "turbo dev", "all": "npm run build && concurrently npm:web npm:api",
                            "one": "vite", "each": "pnpm -r dev"}}"#,
        ),
        (
            "composer.json",
            r#"{"scripts": {"dev": ["A\\B::c", "npx concurrently \"php artisan serve\""]}}"#,
        ),
    ]);
    for (line, expected) in [
        ("turbo run dev", Some("turbo")),
        ("npx turbo@latest dev", Some("turbo")),
        ("npm run dev", Some("turbo")),
        ("pnpm all", Some("concurrently")),
        ("composer run dev", Some("concurrently")),
        ("pnpm -r dev", Some("pnpm --recursive")),
        ("npm run each", Some("pnpm --recursive")),
        ("pnpm --filter ./apps/* dev", Some("pnpm --recursive")),
        ("npm run dev --workspaces", Some("npm --workspaces")),
        ("yarn workspaces foreach -A run dev", Some("yarn workspaces")),
        ("nx run-many -t serve", Some("nx")),
        ("nx serve web", None),
        ("docker compose up", Some("docker compose")),
        ("docker run nginx", None),
        ("run-p dev:*", Some("npm-run-all")),
        ("foreman start", None),
        ("npm run one", None),
        ("npm run dev -w web", None),
        ("vite", None),
    ] {
        let found = match of_command(&words(line), directory.path(), None) {
            Some(Runs::Several(name)) => Some(name),
            _ => None,
        };
        assert_eq!(found, expected, "{line}");
    }
}
