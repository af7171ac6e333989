//! Real frameworks behind `styxy run`, two of each side by side: as people start them, by a script and
//! directly, both serve on the ports that they were given.

mod install;
mod monorepo;
mod side_by_side;

use crate::support::full;
use install::{NODE_BASIC, NODE_FULL, PYTHON_BASIC, PYTHON_FULL};
use side_by_side::{Framework, check};

#[test]
fn two_vite() {
    check(&Framework {
        set: NODE_BASIC,
        files: &[
            ("package.json", r#"{"name": "NAME", "scripts": {"dev": "vite"}}"#),
            ("index.html", "<h1>NAME</h1>"),
        ],
        commands: ["npm run dev", "SET/node_modules/.bin/vite --host 127.0.0.1"],
        page: "/",
        service_type: "dev",
    });
}

#[test]
fn two_http_server() {
    check(&Framework {
        set: PYTHON_BASIC,
        files: &[("NAME.txt", "")],
        commands: ["python3 -m http.server", "python3 -m http.server -b 127.0.0.1"],
        page: "/",
        service_type: "dev",
    });
}

#[test]
fn two_flask() {
    check(&Framework {
        set: PYTHON_BASIC,
        files: &[(
            "app.py",
            "from flask import Flask\napp = Flask(__name__)\n\
             @app.get('/')\ndef index():\n    return 'NAME'\n",
        )],
        commands: ["flask run --debug", "python3 -m flask --app app run"],
        page: "/",
        service_type: "dev",
    });
}

#[test]
fn two_django() {
    if !full() {
        return;
    }
    check(&Framework {
        set: PYTHON_FULL,
        files: &[(
            "manage.py",
            "import sys\n\
             from django.conf import settings\n\
             from django.core.management import execute_from_command_line\n\
             from django.http import HttpResponse\n\
             from django.urls import path\n\
             settings.configure(DEBUG=True, ROOT_URLCONF=__name__, SECRET_KEY='NAME')\n\
             urlpatterns = [path('', lambda request: HttpResponse('NAME'))]\n\
             if __name__ == '__main__':\n    execute_from_command_line(sys.argv)\n",
        )],
        commands: ["python3 manage.py runserver", "python3 manage.py runserver --noreload"],
        page: "/",
        service_type: "dev",
    });
}

#[test]
fn two_uvicorn() {
    if !full() {
        return;
    }
    check(&Framework {
        set: PYTHON_FULL,
        files: &[(
            "app.py",
            "async def app(scope, receive, send):\n\
             \x20   if scope['type'] != 'http':\n        return\n\
             \x20   await send({'type': 'http.response.start', 'status': 200})\n\
             \x20   await send({'type': 'http.response.body', 'body': b'NAME'})\n",
        )],
        commands: ["uvicorn app:app --reload", "python3 -m uvicorn app:app"],
        page: "/",
        service_type: "api",
    });
}

#[test]
fn two_next() {
    if !full() {
        return;
    }
    check(&Framework {
        set: NODE_FULL,
        files: &[
            (
                "package.json",
                r#"{"name": "NAME", "scripts": {"dev": "next dev", "other": "next dev -p 3000"}}"#,
            ),
            ("next.config.mjs", "export default { turbopack: { root: 'SET' } };"),
            ("app/page.jsx", "export default function Page() { return <p>NAME</p>; }"),
            (
                "app/layout.jsx",
                "export default function Layout({ children }) {\n\
                 return <html><body>{children}</body></html>;\n}",
            ),
        ],
        commands: ["npm run dev", "npm run other"],
        page: "/",
        service_type: "dev",
    });
}

#[test]
fn two_astro() {
    if !full() {
        return;
    }
    check(&Framework {
        set: NODE_FULL,
        files: &[
            (
                "package.json",
                r#"{"name": "NAME", "type": "module", "scripts": {"dev": "astro dev"}}"#,
            ),
            ("src/pages/index.astro", "<h1>NAME</h1>"),
        ],
        commands: ["npm run dev", "npx astro dev"],
        page: "/",
        service_type: "dev",
    });
}

#[test]
fn two_eleventy() {
    if !full() {
        return;
    }
    check(&Framework {
        set: NODE_FULL,
        files: &[
            (
                "package.json",
                r#"{"name": "NAME", "scripts": {"start": "npx @11ty/eleventy --serve"}}"#,
            ),
            ("index.md", "# NAME"),
        ],
        commands: ["npm start", "npx @11ty/eleventy --serve"],
        page: "/",
        service_type: "docs",
    });
}

#[test]
fn two_storybook() {
    if !full() {
        return;
    }
    check(&Framework {
        set: NODE_FULL,
        files: &[
            (
                "package.json",
                r#"{"name": "NAME", "type": "module",
                    "scripts": {"storybook": "storybook dev -p 6006 --ci"}}"#,
            ),
            (
                ".storybook/main.js",
                "export default { stories: ['../src/*.stories.js'],\n\
                 framework: '@storybook/html-vite', core: { disableTelemetry: true } };",
            ),
            (
                "src/page.stories.js",
                "export default { title: 'NAME' };\nexport const Page = { render: () => 'NAME' };",
            ),
        ],
        commands: ["npm run storybook", "npx storybook dev --ci"],
        page: "/index.json",
        service_type: "storybook",
    });
}
