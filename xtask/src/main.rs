//! Developer commands: `cargo xtask COMMAND`.

mod aarch64;
mod bench;
mod build;
mod carriers;
mod debian;
mod demo;
mod deny;
mod differential;
#[allow(dead_code, reason = "filter-ebpf/embed.rs, which includes this file, uses the rest")]
mod ebpf;
mod fragments;
mod kernels;
mod lifecycle;
mod package;
mod setup;
mod shell;
mod simulate;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of Palang.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need; the other commands do it too.
    Setup,
    /// Build the `palang` binary for release, kernel program inside.
    Build,
    /// Build and check the .deb and the .rpm, in target/package.
    Package {
        /// Build the last commit again, in another folder, and compare the bytes.
        #[arg(long)]
        twice: bool,
    },
    /// Check licences, advisories and duplicates of all dependencies (deny.toml).
    Deny,
    /// Check the rules that the compiler does not know: layers, references, English; needs no build.
    Tidy {
        /// Write the baseline and the records of layouts and reasons, where their rules permit it.
        #[arg(long, conflicts_with = "paths")]
        update: bool,
        /// Files and folders: print all of their findings, also those of the baseline.
        paths: Vec<String>,
    },
    /// Check that everything but the kernel program compiles for aarch64.
    CheckAarch64,
    /// Check format and lints and run every test, as CI does; needs root.
    Test,
    /// Judge a recorded capture with the real kernel program; needs root.
    Demo,
    /// Run the kernel tests on Debian's kernels from 5.10 to the newest (qemu) and on this one; needs
    /// root.
    Kernels(kernels::Options),
    /// How fast it is, and beside what: `kernel`, `peers`, `goodput`, `control`; needs root.
    Bench {
        /// Arguments of the suite; see `-- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Install, upgrade and remove the packages on a Debian of its own with systemd, under calls; needs
    /// root.
    Lifecycle {
        /// With the packages in target/package, which `cargo xtask package` has made.
        #[arg(long)]
        made: bool,
    },
    /// Read changed messages beside libosip2, sofia-sip and Kamailio: a refused caller is the same for each.
    Differential {
        /// Messages; the test alone reads 20,000.
        #[arg(long, default_value_t = 500_000, value_name = "N")]
        messages: u32,
    },
    /// Refuse calls of Kamailio 6.1 and Asterisk 22, with each code and with silence; needs root.
    Carriers,
    /// Send calls in fragments out of order, with ids used again: no innocent one is lost; needs root.
    Fragments {
        /// Calls, half of them blocked; the test alone sends 4,000.
        #[arg(long, default_value_t = 100_000, value_name = "N")]
        calls: u32,
    },
    /// A simulated year of a centre: what the default policy and others cost and save.
    Simulate {
        /// Arguments of the simulator: `--seed`, `--days`, `--quick`, `--out`; see `-- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Task::Setup => setup::setup(),
        Task::Build => build::build(),
        Task::Lifecycle { made } => lifecycle::lifecycle(made),
        Task::Package { twice } => package::package(twice),
        Task::Deny => deny::deny(),
        Task::CheckAarch64 => aarch64::check(),
        Task::Tidy { update: true, .. } => tidy::update(),
        Task::Tidy { paths, .. } => tidy::check(&paths),
        Task::Test => test::test(),
        Task::Demo => demo::demo(),
        Task::Kernels(options) => kernels::kernels(&options),
        Task::Bench { arguments } => bench::bench(&arguments),
        Task::Differential { messages } => differential::differential(messages),
        Task::Carriers => carriers::carriers(),
        Task::Fragments { calls } => fragments::fragments(calls),
        Task::Simulate { arguments } => simulate::simulate(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
