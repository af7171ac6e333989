//! Twenty fresh projects: what each is recognised as, and how its commands are told port 8001.
//!
//! Manifests and marker files are those that the frameworks' own generators write, cut down to what
//! can matter here.

use super::super::*;
use super::{directory, program_of, typed, words};

struct Project {
    /// Name and text; a name that ends in `/` is a directory.
    files: &'static [(&'static str, &'static str)],
    /// What its directory is: program and service type.
    is: (&'static str, &'static str),
    /// What is typed, the service type, and what runs then, as it would be typed without Styxy.
    commands: &'static [(&'static str, &'static str, &'static str)],
}

const PROJECTS: &[Project] = &[
    Project {
        files: &[
            ("index.html", ""),
            ("vite.config.ts", ""),
            (
                "package.json",
                r#"{"name": "app", "private": true, "version": "0.0.0", "type": "module",
                    "scripts": {"dev": "vite", "build": "tsc -b && vite build", "lint": "eslint .",
                                "preview": "vite preview"},
                    "dependencies": {"react": "^19.2.0", "react-dom": "^19.2.0"},
                    "devDependencies": {"@vitejs/plugin-react": "^5.1.1", "eslint": "^9.39.1",
                                        "typescript": "~5.9.3", "vite": "^8.0.0"}}"#,
            ),
        ],
        is: ("Vite", "dev"),
        commands: &[
            ("npm run dev", "dev", "npm run dev -- --port 8001 --strictPort"),
            ("npm run dev -- --host", "dev", "npm run dev -- --host --port 8001 --strictPort"),
            ("pnpm dev", "dev", "pnpm dev --port 8001 --strictPort"),
            ("yarn dev", "dev", "yarn dev --port 8001 --strictPort"),
            ("bun run dev", "dev", "bun run dev --port 8001 --strictPort"),
            ("npx vite", "dev", "npx vite --port 8001 --strictPort"),
            ("pnpm vite", "dev", "pnpm vite --port 8001 --strictPort"),
            ("npm exec vite", "dev", "npm exec vite -- --port 8001 --strictPort"),
            ("npm run preview", "preview", "npm run preview -- --port 8001 --strictPort"),
            (
                "node --inspect node_modules/vite/bin/vite.js",
                "dev",
                "node --inspect node_modules/vite/bin/vite.js --port 8001 --strictPort",
            ),
            ("npm run dev -- --port 3000", "dev", "npm run dev -- --port 3000"),
            ("npx vite --port={port}", "dev", "npx vite --port={port}"),
            ("npm run build", "", "npm run build"),
            ("npm run lint", "", "npm run lint"),
            ("npm install", "", "npm install"),
            ("vite build", "", "vite build"),
            ("sleep 60", "", "sleep 60"),
            ("python3 -m http.server", "dev", "python3 -m http.server 8001"),
            ("python3 server.py", "", "python3 server.py"),
            ("sh -c vite", "", "sh -c vite"),
        ],
    },
    Project {
        files: &[
            ("next.config.ts", ""),
            (
                "package.json",
                r#"{"name": "shop", "version": "0.1.0", "private": true,
                    "scripts": {"dev": "next dev", "build": "next build", "start": "next start",
                                "lint": "eslint", "slow": "prisma generate && next dev",
                                "fixed": "next dev -p 3001", "set": "PORT=3001 next dev",
                                "cross": "cross-env NODE_ENV=development PORT=3001 next dev"},
                    "dependencies": {"next": "16.0.7", "react": "19.2.0", "react-dom": "19.2.0"}}"#,
            ),
        ],
        is: ("Next.js", "dev"),
        commands: &[
            ("npm run dev", "dev", "PORT=8001 npm run dev"),
            ("npx next dev --turbopack", "dev", "PORT=8001 npx next dev --turbopack"),
            ("npm start", "preview", "PORT=8001 npm start"),
            ("npm run slow", "dev", "PORT=8001 npm run slow"),
            ("npm run fixed", "dev", "PORT=8001 npm run fixed -- -p 8001"),
            ("npm run set", "dev", "PORT=8001 npm run set -- -p 8001"),
            ("yarn cross", "dev", "PORT=8001 yarn cross -p 8001"),
            ("npx next dev -p 3001", "dev", "npx next dev -p 3001"),
            ("npx next build", "", "npx next build"),
        ],
    },
    Project {
        files: &[
            ("astro.config.mjs", ""),
            (
                "package.json",
                r#"{"name": "site", "type": "module", "version": "0.0.1",
                    "scripts": {"dev": "astro dev", "build": "astro build",
                                "preview": "astro preview", "astro": "astro",
                                "fixed": "astro dev --port 3000"},
                    "dependencies": {"astro": "^5.16.4"}}"#,
            ),
        ],
        is: ("Astro", "dev"),
        commands: &[
            ("npm run dev", "dev", "npm run dev -- --port 8001"),
            ("npm run preview", "preview", "npm run preview -- --port 8001"),
            ("npm run astro dev", "dev", "npm run astro dev -- --port 8001"),
            ("npm run astro check", "", "npm run astro check"),
            ("npm run fixed", "dev", "npm run fixed"),
        ],
    },
    Project {
        files: &[
            ("angular.json", "{}"),
            (
                "package.json",
                r#"{"name": "app", "version": "0.0.0",
                    "scripts": {"ng": "ng", "start": "ng serve", "build": "ng build",
                                "test": "ng test"},
                    "dependencies": {"@angular/core": "^21.0.0"},
                    "devDependencies": {"@angular/build": "^21.0.2", "@angular/cli": "^21.0.2",
                                        "vitest": "^4.0.8"}}"#,
            ),
        ],
        is: ("Angular", "dev"),
        commands: &[
            ("npm start", "dev", "npm start -- --port 8001"),
            ("npx ng serve --open", "dev", "npx ng serve --open --port 8001"),
            ("npm run ng -- serve", "dev", "npm run ng -- serve --port 8001"),
            ("npm run build", "", "npm run build"),
        ],
    },
    Project {
        files: &[
            (".storybook/", ""),
            (
                "package.json",
                r#"{"name": "kit", "type": "module",
                    "scripts": {"storybook": "storybook dev -p 6006",
                                "build-storybook": "storybook build"},
                    "devDependencies": {"@storybook/react-vite": "^10.1.4", "storybook": "^10.1.4"}}"#,
            ),
        ],
        is: ("Storybook", "storybook"),
        commands: &[
            ("npm run storybook", "storybook", "npm run storybook -- -p 8001 --exact-port"),
            ("npx storybook dev", "storybook", "npx storybook dev -p 8001 --exact-port"),
            ("npx storybook dev -p 7000", "storybook", "npx storybook dev -p 7000"),
            ("npm run build-storybook", "", "npm run build-storybook"),
        ],
    },
    Project {
        files: &[
            ("nuxt.config.ts", ""),
            (
                "package.json",
                r#"{"name": "nuxt-app", "type": "module", "private": true,
                    "scripts": {"build": "nuxt build", "dev": "nuxt dev",
                                "postinstall": "nuxt prepare"},
                    "dependencies": {"nuxt": "^4.2.1", "vue": "^3.5.25"}}"#,
            ),
        ],
        is: ("Nuxt", "dev"),
        commands: &[
            ("npm run dev", "dev", "NUXT_PORT=8001 npm run dev"),
            ("npx nuxi@latest dev", "dev", "NUXT_PORT=8001 npx nuxi@latest dev"),
        ],
    },
    Project {
        files: &[
            ("svelte.config.js", ""),
            ("vite.config.ts", ""),
            (
                "package.json",
                r#"{"name": "app", "private": true, "version": "0.0.1", "type": "module",
                    "scripts": {"dev": "vite dev", "build": "vite build",
                                "preview": "vite preview"},
                    "devDependencies": {"@sveltejs/kit": "^2.49.1", "svelte": "^5.45.6",
                                        "vite": "^7.2.6"}}"#,
            ),
        ],
        is: ("Vite", "dev"),
        commands: &[
            ("npm run dev", "dev", "npm run dev -- --port 8001 --strictPort"),
            ("npm run dev -- --open", "dev", "npm run dev -- --open --port 8001 --strictPort"),
        ],
    },
    Project {
        files: &[
            ("eleventy.config.js", ""),
            (
                "package.json",
                r#"{"name": "blog", "scripts": {"start": "npx @11ty/eleventy --serve --quiet",
                                               "build": "npx @11ty/eleventy",
                                               "inner": "npm run start"},
                    "devDependencies": {"@11ty/eleventy": "^3.1.2"}}"#,
            ),
        ],
        is: ("Eleventy", "docs"),
        commands: &[
            ("npm start", "docs", "npm start -- --port 8001"),
            ("npm run inner", "docs", "npm run inner -- -- --port 8001"),
            ("npx @11ty/eleventy --serve", "docs", "npx @11ty/eleventy --serve --port 8001"),
            ("npm run build", "", "npm run build"),
        ],
    },
    Project {
        files: &[("manage.py", ""), ("requirements.txt", "Django>=5.2,<6\npsycopg[binary]\n")],
        is: ("Django", "dev"),
        commands: &[
            ("python manage.py runserver", "dev", "python manage.py runserver 8001"),
            (
                "uv run ./manage.py runserver --noreload",
                "dev",
                "uv run ./manage.py runserver --noreload 8001",
            ),
            (
                "python3.12 manage.py runserver 0.0.0.0:9000",
                "dev",
                "python3.12 manage.py runserver 0.0.0.0:9000",
            ),
            ("python manage.py migrate", "dev", "python manage.py migrate"),
        ],
    },
    Project {
        files: &[("app.py", ""), ("requirements.txt", "Flask==3.1.2\n")],
        is: ("Flask", "dev"),
        commands: &[
            ("flask --app app run", "dev", "FLASK_RUN_PORT=8001 flask --app app run"),
            ("python3 -m flask run", "dev", "FLASK_RUN_PORT=8001 python3 -m flask run"),
            ("flask run -p 5050", "dev", "flask run -p 5050"),
            ("flask routes", "", "flask routes"),
            ("python app.py", "dev", "FLASK_RUN_PORT=8001 python app.py"),
        ],
    },
    Project {
        files: &[
            ("main.py", ""),
            (
                "pyproject.toml",
                "[project]\nname = \"api\"\nversion = \"0.1.0\"\nrequires-python = \">=3.12\"\n\
                 dependencies = [\"fastapi[standard]>=0.124\"]\n",
            ),
        ],
        is: ("FastAPI", "api"),
        commands: &[
            ("fastapi dev", "api", "PORT=8001 fastapi dev"),
            ("uv run fastapi dev main.py", "api", "PORT=8001 uv run fastapi dev main.py"),
            ("uvicorn main:app --reload", "api", "UVICORN_PORT=8001 uvicorn main:app --reload"),
            ("uvicorn main:app --uds a.sock", "api", "uvicorn main:app --uds a.sock"),
        ],
    },
    Project {
        files: &[
            ("bin/rails", ""),
            ("config.ru", ""),
            ("Gemfile", "source \"https://rubygems.example\"\n\ngem \"rails\", \"~> 8.1.1\"\n"),
            ("package.json", r#"{"scripts": {"build": "esbuild app.js", "dev": "vite"}}"#),
        ],
        is: ("Rails", "dev"),
        commands: &[
            ("bin/rails server", "dev", "PORT=8001 bin/rails server"),
            ("bundle exec rails s", "dev", "PORT=8001 bundle exec rails s"),
            ("bin/rails db:migrate", "", "bin/rails db:migrate"),
        ],
    },
    Project {
        files: &[(
            "mix.exs",
            "defmodule App.MixProject do\n  defp deps do\n    [\n      {:phoenix, \"~> 1.8.2\"},\n\
             {:bandit, \"~> 1.5\"}\n    ]\n  end\nend\n",
        )],
        is: ("Phoenix", "dev"),
        commands: &[
            ("mix phx.server", "dev", "PORT=8001 mix phx.server"),
            ("mix deps.get", "", "mix deps.get"),
        ],
    },
    Project {
        files: &[
            ("artisan", ""),
            (
                "composer.json",
                r#"{"require": {"php": "^8.2", "laravel/framework": "^12.0"},
                    "scripts": {"serve": "@php artisan serve",
                                "dev": ["Composer\\Config::disableProcessTimeout",
                                        "npx concurrently -c \"red\" \"php artisan serve\" \"npm run dev\""]}}"#,
            ),
            (
                "package.json",
                r#"{"private": true, "type": "module", "scripts": {"dev": "vite"},
                    "devDependencies": {"laravel-vite-plugin": "^2.0.0", "vite": "^7.0.7"}}"#,
            ),
        ],
        is: ("Laravel", "dev"),
        commands: &[
            ("php artisan serve", "dev", "SERVER_PORT=8001 php artisan serve"),
            ("composer run serve", "dev", "SERVER_PORT=8001 composer run serve"),
            ("composer run dev", "", "composer run dev"),
            ("npm run dev", "dev", "npm run dev -- --port 8001 --strictPort"),
        ],
    },
    Project {
        files: &[(
            "pom.xml",
            "<project><parent><groupId>org.springframework.boot</groupId>\
             <artifactId>spring-boot-starter-parent</artifactId></parent></project>",
        )],
        is: ("Spring Boot", "api"),
        commands: &[
            ("./mvnw spring-boot:run", "api", "SERVER_PORT=8001 ./mvnw spring-boot:run"),
            ("./gradlew :web:bootRun", "api", "SERVER_PORT=8001 ./gradlew :web:bootRun"),
            ("java -jar target/a.jar", "api", "SERVER_PORT=8001 java -jar target/a.jar"),
            ("./mvnw package", "", "./mvnw package"),
        ],
    },
    Project {
        files: &[("hugo.toml", "title = 'Blog'\n"), ("content/", "")],
        is: ("Hugo", "docs"),
        commands: &[
            ("hugo server -D", "docs", "hugo server -D --port 8001"),
            ("hugo server -p 1414", "docs", "hugo server -p 1414"),
            ("hugo", "", "hugo"),
        ],
    },
    Project {
        files: &[("go.mod", "module example.org/app\n\ngo 1.25\n")],
        is: ("Go", "dev"),
        commands: &[
            ("go run .", "dev", "PORT=8001 go run ."),
            ("go test ./...", "test", "PORT=8001 go test ./..."),
            ("go build", "", "go build"),
        ],
    },
    Project {
        files: &[("Cargo.toml", "[package]\nname = \"app\"\n[dependencies]\naxum = \"0.8\"\n")],
        is: ("Rust", "dev"),
        commands: &[
            ("cargo run --release", "dev", "PORT=8001 cargo run --release"),
            ("cargo test", "test", "PORT=8001 cargo test"),
            ("cargo build", "", "cargo build"),
        ],
    },
    Project {
        files: &[(
            "compose.yaml",
            "services:\n  db:\n    image: postgres:17\n    ports: [\"${DB_PORT}:5432\"]\n",
        )],
        is: ("PostgreSQL", "database"),
        commands: &[("docker compose up", "", "docker compose up")],
    },
    Project {
        files: &[
            (
                "firebase.json",
                r#"{"emulators": {"auth": {"port": 9099}, "ui": {"enabled": true}}}"#,
            ),
            (".firebaserc", "{}"),
        ],
        is: ("Firebase Emulator Suite", "hub"),
        commands: &[
            ("firebase emulators:start", "hub", "firebase emulators:start"),
            ("firebase deploy", "", "firebase deploy"),
        ],
    },
];

#[test]
fn twenty_fresh_projects_are_recognised() {
    assert_eq!(PROJECTS.len(), 20);
    for project in PROJECTS {
        let directory = directory(project.files);
        let found = of_directory(directory.path(), Some(directory.path()));
        let found = found.unwrap_or_else(|| panic!("{:?} is not recognised", project.is));
        assert_eq!((found.program(), found.service_type()), project.is, "{}", found.why());
    }
}

#[test]
fn their_commands_are_told_the_port() {
    for project in PROJECTS {
        let directory = directory(project.files);
        for (line, service_type, expected) in project.commands {
            let words = words(line);
            let found = program_of(line, directory.path());
            let found_type = found.as_ref().map_or("", Recognised::service_type);
            assert_eq!(found_type, *service_type, "{:?}: {line}: {found:?}", project.is);
            let handed = match found {
                Some(found) => found.hand_over(&words, 8001),
                None => HandOver { words, ..HandOver::default() },
            };
            assert_eq!(typed(&handed), *expected, "{:?}: {line}: {handed:?}", project.is);
        }
    }
}
