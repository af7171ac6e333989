//! A command that does nothing but ask: what starting a program, parsing its arguments and one POST
//! cost with the program's own libraries.

use std::process::ExitCode;

use clap::Parser;

/// Sends one POST and prints the answer's size.
#[derive(Parser)]
struct Arguments {
    /// Where to.
    #[arg(long, env = "NOOP_URL")]
    url: String,
    /// What to send.
    #[arg(long)]
    body: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let request = ureq::post(&arguments.url).content_type("application/json");
    match request.send(&arguments.body).and_then(|mut answer| answer.body_mut().read_to_string()) {
        Ok(text) => {
            println!("{}", text.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
