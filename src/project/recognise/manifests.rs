//! The dependencies that a package's manifest names. A broken manifest names none.

use serde_json::Value;
use toml::de::{DeTable, DeValue};

/// A kind of dependency.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// How `programs.txt` writes it.
    pub(super) prefix: &'static str,
    /// The files that name such dependencies.
    pub(super) files: &'static [&'static str],
    /// How they are found in the text of such a file.
    pub(super) names: Names,
}

/// Finds the names of dependencies in a text.
pub(super) type Names = fn(&str) -> Vec<String>;

pub(super) const KINDS: [Kind; 10] = [
    Kind { prefix: "npm", files: &["package.json"], names: npm },
    Kind { prefix: "pypi", files: &["pyproject.toml"], names: pyproject },
    Kind { prefix: "pypi", files: &["requirements.txt"], names: requirements },
    Kind { prefix: "gem", files: &["Gemfile"], names: gemfile },
    Kind { prefix: "hex", files: &["mix.exs"], names: mix },
    Kind { prefix: "composer", files: &["composer.json"], names: composer },
    Kind { prefix: "jvm", files: &["pom.xml", "build.gradle", "build.gradle.kts"], names: build },
    Kind { prefix: "cargo", files: &["Cargo.toml"], names: cargo },
    // Nothing in the table asks for a Go module.
    Kind { prefix: "go", files: &["go.mod"], names: |_| Vec::new() },
    Kind {
        prefix: "image",
        files: &["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"],
        names: compose,
    },
];

/// package.json (npm's package-json(5)).
fn npm(text: &str) -> Vec<String> {
    json_keys(text, &["dependencies", "devDependencies"])
}

/// composer.json.
fn composer(text: &str) -> Vec<String> {
    json_keys(text, &["require", "require-dev"])
}

fn json_keys(text: &str, sections: &[&str]) -> Vec<String> {
    let Ok(json) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let sections = sections.iter().filter_map(|section| json.get(section)?.as_object());
    sections.flat_map(|section| section.keys().cloned()).collect()
}

/// pyproject.toml: PEP 621, PEP 735 and Poetry's own tables.
fn pyproject(text: &str) -> Vec<String> {
    let Ok(table) = DeTable::parse(text) else { return Vec::new() };
    let table = table.get_ref();
    let mut names = Vec::new();
    let mut requirements = |list: Option<&DeValue>| {
        let list = list.and_then(DeValue::as_array).into_iter().flat_map(|list| list.iter());
        let texts = list.filter_map(|one| one.get_ref().as_str());
        names.extend(texts.filter_map(requirement));
    };
    requirements(inner(table, &["project", "dependencies"]));
    for groups in [&["project", "optional-dependencies"][..], &["dependency-groups"]] {
        let groups = inner(table, groups).and_then(DeValue::as_table);
        for (_, list) in groups.into_iter().flat_map(|groups| groups.iter()) {
            requirements(Some(list.get_ref()));
        }
    }
    let mut keys = |path: &[&str]| {
        let table = inner(table, path).and_then(DeValue::as_table);
        let keys = table.into_iter().flat_map(|table| table.keys());
        names.extend(keys.filter_map(|key| requirement(key.get_ref())));
    };
    keys(&["tool", "poetry", "dependencies"]);
    keys(&["tool", "poetry", "group", "dev", "dependencies"]);
    names
}

/// requirements.txt, as pip reads it.
fn requirements(text: &str) -> Vec<String> {
    text.lines().filter_map(requirement).collect()
}

/// The name in a requirement (PEP 508), in its normal form (PEP 503).
fn requirement(text: &str) -> Option<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let name = text.trim_start().split(|letter| !is_name(letter)).next()?;
    let is_option = name.is_empty() || name.starts_with('-');
    (!is_option).then(|| name.to_ascii_lowercase().replace(['_', '.'], "-"))
}

/// Cargo.toml (The Cargo Book, "Specifying Dependencies").
fn cargo(text: &str) -> Vec<String> {
    let Ok(table) = DeTable::parse(text) else { return Vec::new() };
    let dependencies = inner(table.get_ref(), &["dependencies"]).and_then(DeValue::as_table);
    let keys = dependencies.into_iter().flat_map(|table| table.keys());
    keys.map(|key| key.get_ref().to_string()).collect()
}

fn inner<'t>(table: &'t DeTable<'t>, path: &[&str]) -> Option<&'t DeValue<'t>> {
    let (last, path) = path.split_last()?;
    let table = path.iter().try_fold(table, |table, key| table.get(*key)?.get_ref().as_table())?;
    Some(table.get(*last)?.get_ref())
}

/// Gemfile: `gem "rails", "~> 8.0"`.
fn gemfile(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let quoted = line.trim_start().strip_prefix("gem")?.trim_start_matches([' ', '(']);
        let name = quoted.strip_prefix(['"', '\''])?.split(['"', '\'']).next()?;
        Some(name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// mix.exs: `{:phoenix, "~> 1.8"}`.
fn mix(text: &str) -> Vec<String> {
    let dependencies = text.split("{:").skip(1);
    dependencies.filter_map(|rest| rest.split(',').next()).map(str::to_owned).collect()
}

/// pom.xml and build.gradle: groups and plugins, such as `org.springframework.boot`.
fn build(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.');
    words.filter(|word| word.contains('.')).map(str::to_owned).collect()
}

/// The Compose file: the images, without registry and version.
fn compose(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let image = line.trim_start().strip_prefix("image:")?.trim().trim_matches(['"', '\'']);
        let name = image.rsplit('/').next()?.split([':', '@']).next()?;
        Some(name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found() {
        let table: [(Names, &str, &str); 9] = [
            (
                npm,
                r#"{"dependencies": {"next": "16"}, "devDependencies": {"vite": "8"}, "x": {"y": 1}}"#,
                "next vite",
            ),
            (
                composer,
                r#"{"require": {"php": "8", "laravel/framework": "12"}}"#,
                "php laravel/framework",
            ),
            (
                pyproject,
                "[project]\ndependencies = [\"Django>=5\", 'uvicorn[standard] ; x']\n\
                 optional-dependencies.dev = [\"pytest\"]\n[dependency-groups]\nweb = [\"Flask\"]\n\
                 [tool.poetry.dependencies]\nFastAPI = \"^1\"\n",
                "django uvicorn pytest flask fastapi",
            ),
            (
                requirements,
                "# web\n-r base.txt\n\nFlask==3.1\nuvicorn [standard]\nzope.interface\n",
                "flask uvicorn zope-interface",
            ),
            (
                gemfile,
                "source 'x'\ngem \"rails\", \"~> 8\"\n  gem('puma')\ngemspec\n",
                "rails puma",
            ),
            (mix, "defp deps do\n[{:phoenix, \"~> 1.8\"}, {:bandit, \"~> 1\"}]", "phoenix bandit"),
            (
                build,
                "plugins { id 'org.springframework.boot' version '3.5.0' }",
                "org.springframework.boot 3.5.0",
            ),
            (cargo, "[dependencies]\nrocket = \"0.5\"\n[dev-dependencies]\nx = \"1\"", "rocket"),
            (
                compose,
                "services:\n  db:\n    image: \"docker.io/library/postgres:17@sha256:0\"\n    x: y\n",
                "postgres",
            ),
        ];
        for (names, text, expected) in table {
            assert_eq!(names(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_manifest_names_nothing() {
        for names in [npm, composer, pyproject, cargo] {
            for text in ["", "{", "[", "[[\n", "\"", "[1]", "null", "dependencies = 1"] {
                assert_eq!(names(text), Vec::<String>::new(), "{text}");
            }
        }
        for text in [r#"{"dependencies": []}"#, r#"{"dependencies": {"vite": "8"}"#] {
            assert_eq!(npm(text), Vec::<String>::new(), "{text}");
        }
    }
}
