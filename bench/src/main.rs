//! The benchmark suite: `cargo xtask bench COMMAND`. Each command prints its tables and writes them
//! to its part of `docs/performance.md`.

mod control;
mod goodput;
mod kernel;
mod page;
mod peers;
mod veth;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

/// Measure how fast Palang is, compared with other programs.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// ns per packet of the kernel program, by test runs.
    Kernel(kernel::Arguments),
    /// CPU per refused INVITE on a veth pair, beside iptables, nft and Kamailio.
    Peers(peers::Arguments),
    /// Honest calls answered while a flood grows, with and without the gate.
    Goodput(goodput::Arguments),
    /// From command to enforcement, import, start, memory.
    Control(control::Arguments),
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Bench) -> Result<()> {
    // The objects of the benchmarks are built together with the filter's.
    ensure!(
        !palang::datapath::object::OBJECT.is_empty(),
        "no benchmark: this program was built without the kernel programs; run `cargo xtask setup`, \
         then build it again"
    );
    match command {
        Bench::Kernel(arguments) => kernel::run(arguments),
        Bench::Peers(arguments) => peers::run(arguments),
        Bench::Goodput(arguments) => goodput::run(arguments),
        Bench::Control(arguments) => control::run(arguments),
    }
}
