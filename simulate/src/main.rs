//! A simulated year of an emergency call centre: what blocks save and what they cost. The decisions
//! are Palang's own (`filter_common::decide::decide`, `palang::model::ladder`); the callers are [`model`]s.

mod callers;
mod cases;
mod centre;
mod chance;
mod model;
mod plots;
mod tables;
mod year;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use cases::{Case, Series};
use year::Outcome;

/// Simulate a year of an emergency call centre: what blocks save and what they cost.
#[derive(Parser)]
#[command(bin_name = "cargo xtask simulate")]
struct Arguments {
    /// Seed; the same seed gives the same year.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// Number of centres per policy; more centres give more cases to count.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    centres: u32,
    /// Simulate four centres for 30 days.
    #[arg(long, conflicts_with_all = ["days", "centres"])]
    quick: bool,
    /// Folder for the plots.
    #[arg(long, default_value = "target/simulate")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        (arguments.days, arguments.centres) = (30, 4);
    }
    let Arguments { seed, days, centres, out, .. } = arguments;
    let began = Instant::now();
    let cases = cases::all(days);
    let outcomes = run(&cases, seed, centres)?;
    let runs: Vec<_> = cases.into_iter().zip(outcomes).collect();

    println!("{centres} centres, {days} days each, seed {seed}\n");
    let rows = |series: &'static [Series]| {
        let of = runs.iter().filter(|(case, _)| series.contains(&case.series));
        of.map(|(case, outcome)| (case.name.as_str(), outcome))
    };
    use Series::{Attempts, Centres, Ends, Forgery, Ladders, Machines, Times};
    println!("Policies\n\n{}\n", tables::costs(rows(&[Ends, Attempts, Times, Ladders])));
    println!("Other centres\n\n{}\n", tables::costs(rows(&[Centres])));
    println!("Carriers that call again by machine\n\n{}\n", tables::costs(rows(&[Machines])));
    println!("{}\n", tables::machines(rows(&[Machines])));
    println!("Innocents\n\n{}\n", tables::innocents(rows(&[Ends, Attempts, Ladders, Forgery])));

    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    plots::trade(&out.join("trade.svg"), &runs)?;
    plots::delays(&out.join("delays.svg"), &runs)?;
    println!("trade.svg and delays.svg are in {}", out.display());
    eprintln!("{:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Runs every case for N centres, which are the same for each case.
fn run(cases: &[Case], seed: u64, centres: u32) -> Result<Vec<Outcome>> {
    let jobs = cases.len() * centres as usize;
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Option<Result<Outcome>>>> = (0..jobs).map(|_| Mutex::new(None)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && index < jobs
                {
                    let Case { world, rules, .. } = &cases[index / centres as usize];
                    let centre = index as u64 % u64::from(centres);
                    let outcome = year::run(world, rules, chance::mixed(seed ^ centre << 32));
                    if let Ok(mut place) = done[index].lock() {
                        *place = Some(outcome);
                    }
                }
            });
        }
    });
    let mut outcomes = vec![Outcome::default(); cases.len()];
    for (index, place) in done.into_iter().enumerate() {
        let Ok(Some(outcome)) = place.into_inner() else {
            bail!("the simulation of a centre failed")
        };
        outcomes[index / centres as usize].add(outcome?);
    }
    Ok(outcomes)
}
