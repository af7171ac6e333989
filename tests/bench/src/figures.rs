//! Figures, and the table that they become.

use std::time::{Duration, Instant};

/// Times of one kind of work, in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes one more.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e6);
    }

    /// Half of them took less.
    pub fn p50(&self) -> f64 {
        quantile(&self.0, 0.5)
    }

    /// One in a hundred took longer.
    pub fn p99(&self) -> f64 {
        quantile(&self.0, 0.99)
    }
}

/// How long something takes.
pub fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

/// The middle of some figures, one of each round.
pub fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The middle of the ratios of each round, so that drift hits both sides alike.
pub fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    median(&ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect::<Vec<_>>())
}

fn quantile(figures: &[f64], part: f64) -> f64 {
    assert!(!figures.is_empty(), "nothing was measured");
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index of a short list"
    )]
    let index = (sorted.len() as f64 * part) as usize;
    sorted[index.min(sorted.len() - 1)]
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy)]
pub enum Bar {
    /// No less.
    AtLeast(f64),
    /// No more.
    AtMost(f64),
    /// Nothing is asked: the figure explains another one.
    None,
}

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// The figures, with units.
    pub measured: String,
    /// What is held against the bar.
    pub figure: f64,
    /// Its unit; empty for a ratio.
    pub unit: &'static str,
    /// The bar.
    pub bar: Bar,
}

/// Prints the table as Markdown.
pub fn print(rows: &[Row]) {
    println!("| work | measured | figure | bar | |\n|---|---|---|---|---|");
    for Row { work, measured, figure, unit, bar } in rows {
        let (bar, verdict) = match bar {
            Bar::AtLeast(bar) => (format!("at least {bar}"), verdict(figure >= bar)),
            Bar::AtMost(bar) => (format!("at most {bar}"), verdict(figure <= bar)),
            Bar::None => (String::new(), ""),
        };
        println!("| {work} | {measured} | {figure:.2}{unit} | {bar} | {verdict} |");
    }
}

fn verdict(holds: bool) -> &'static str {
    if holds { "holds" } else { "**missed**" }
}
