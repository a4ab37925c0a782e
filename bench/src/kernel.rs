//! `bench kernel`: the kernel program by `BPF_PROG_TEST_RUN`, compared with programs that do less.
//!
//! All programs of a table take turns in each round, so that any disturbance affects all of them.

mod cases;
mod measured;
mod packets;
mod plots;
mod policy;
mod programs;
mod replies;
mod rounds;
mod second_look;
mod tables;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use palang::model::policy::Policy;

use self::cases::Case;
use self::measured::{Measured, Size};
use self::programs::{Program, Stack};
use self::rounds::Rounds;
use crate::page;

/// Number of blocked numbers while the programs and the verdicts are measured.
const BASE: u32 = 1 << 16;
/// Sizes of the list. The programs draw numbers of 24 bits.
const SIZES: [u32; 4] = [1_000, 64_000, 1_000_000, 10_000_000];
/// Largest kernel memory in bytes per blocked number, at a million numbers: its entry, two attempts
/// and two counts of redials, with their buckets. A test checks the maps against it.
const BYTES_PER_NUMBER: u64 = 640;

/// Options of `bench kernel`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Short run that only prints.
    #[arg(long)]
    pub quick: bool,
    /// Number of rounds; the tables show the smallest and the median.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Packets per round.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub packets: u32,
}

/// Measures, prints, and writes the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    pin()?;
    let (rounds, packets, sizes) = if arguments.quick {
        (3, 20_000, &SIZES[..2])
    } else {
        (arguments.rounds, arguments.packets, &SIZES[..])
    };
    let mut measured = base(rounds, packets)?;
    (measured.sizes, measured.left_out) = all_sizes(sizes, rounds, packets)?;
    let text = tables::text(&measured);
    println!("{text}");
    if arguments.quick {
        return Ok(());
    }
    plots::programs(&page::docs().join("performance/kernel-programs.svg"), &measured)?;
    plots::sizes(&page::docs().join("performance/kernel-sizes.svg"), &measured)?;
    page::write("kernel", &format!("{text}\n{}", tables::PLOTS))
}

/// Measures the programs and the verdicts with a list of one size.
fn base(rounds: u32, packets: u32) -> Result<Measured> {
    let mut stack = Stack::load(BASE + policy::EXTRA, &Program::ALL)?;
    let mut policy = policy::policy()?;
    stack.maps.fill(&policy)?;
    policy::fill(&stack.maps, BASE)?;
    policy::fill_extra(&stack.maps)?;
    let mut programs = cases::programs();
    let mut verdicts = cases::verdicts();
    let mut bases = cases::verdict_bases();
    let mut second_look = second_look::rows();
    let mut replies = replies::rows()?;
    stack.load_second_look()?;
    warm_up(&mut cases::sizes(BASE)[1], &mut stack, &mut policy, BASE + policy::EXTRA)?;
    for round in 0..rounds {
        eprint!("\rround {} of {rounds} ", round + 1);
        for case in programs.iter_mut().chain(&mut bases).chain(&mut verdicts) {
            case.run(&mut stack, &mut policy, packets)?;
        }
        for row in &mut second_look {
            row.run(&mut stack, packets)?;
        }
        for row in &mut replies {
            row.run()?;
        }
    }
    eprintln!();
    let loaded = Program::ALL.map(Program::name);
    let loaded = loaded.into_iter().map(|name| Ok((name, stack.loaded(name)?)));
    Ok(Measured {
        loaded: loaded.collect::<Result<_>>()?,
        programs,
        verdicts,
        bases,
        second_look,
        replies,
        sizes: Vec::new(),
        left_out: Vec::new(),
    })
}

/// Measures all sizes; their lists exist at the same time, so that they take turns.
fn all_sizes(sizes: &[u32], rounds: u32, packets: u32) -> Result<(Vec<Size>, Vec<u32>)> {
    let mut stacks = Vec::new();
    let mut left_out = Vec::new();
    for numbers in sizes.iter().copied() {
        // Twice, because other programs may also need memory.
        if available()? < u64::from(numbers) * BYTES_PER_NUMBER * 2 {
            left_out.push(numbers);
            continue;
        }
        eprintln!("a list of {numbers} numbers");
        let mut stack = Stack::load(numbers, &[Program::Null, Program::Palang])?;
        let mut policy = policy::policy()?;
        stack.maps.fill(&policy)?;
        policy::fill(&stack.maps, numbers)?;
        let mut cases = cases::sizes(numbers);
        warm_up(&mut cases[1], &mut stack, &mut policy, numbers)?;
        let size = Size { numbers, cases, memory: stack.memory()? };
        stacks.push((stack, policy, size));
    }
    for round in 0..rounds {
        eprint!("\rround {} of {rounds} ", round + 1);
        for (stack, policy, size) in &mut stacks {
            for case in &mut size.cases {
                case.run(stack, policy, packets)?;
            }
        }
    }
    eprintln!();
    Ok((stacks.into_iter().map(|(.., size)| size).collect(), left_out))
}

/// Fills the map of attempts, as in a gate that has seen many callers.
fn warm_up(case: &mut Case, stack: &mut Stack, policy: &mut Policy, numbers: u32) -> Result<()> {
    case.run(stack, policy, (2 * numbers + 4096).max(100_000))?;
    case.rounds = Rounds::default();
    Ok(())
}

/// Stays on the last CPU that we may use.
fn pin() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let mut set = CpuSet::new();
    set.set(last.context("no CPU to run on")?)?;
    Ok(sched_setaffinity(this, &set)?)
}

/// Returns the available memory in bytes.
fn available() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no MemAvailable in /proc/meminfo")?.trim().parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn million_numbers_take_no_more_memory_than_the_page_says() {
        let numbers = 1_000_000;
        let memory = Stack::load(numbers, &[]).unwrap().memory().unwrap();
        let sum: u64 = memory.iter().map(|(_, bytes)| bytes).sum();
        let each = sum / u64::from(numbers);
        println!("{each} bytes per number of {BYTES_PER_NUMBER}; {memory:?}");
        assert!(each <= BYTES_PER_NUMBER);
        assert!(each >= 200, "the kernel tells how much it uses: {each}");
    }
}
