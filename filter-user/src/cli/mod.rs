//! The command line: one file for each command.

pub(crate) mod command;
pub(crate) mod fallback;
pub(crate) mod input;
pub mod output;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::api::client::Client;
use crate::api::wire;
use crate::cli::command::{
    allow, attach, audit, block, callback, calls, check, completions, config, daemon, doctor,
    erase, explain, export, mode, monitor, r#override, plan, replay, report, review, selftest,
    setup, status, store, top, what_if,
};
use crate::datapath::object::VERSION;
use crate::exit::{Exit, Failure};

/// The caller gate for emergency call centres.
#[derive(Debug, Parser)]
#[command(name = "palang", version, long_version = VERSION, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Socket of the daemon
    #[arg(
        long,
        global = true,
        env = "PALANG_SOCKET",
        value_name = "PATH",
        default_value = wire::SOCKET
    )]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    Config(config::Arguments),
    Daemon(daemon::Arguments),
    Doctor(doctor::Arguments),
    Setup(setup::Arguments),
    Status(status::Arguments),
    Selftest(selftest::Arguments),
    Block(block::Arguments),
    Allow(allow::Arguments),
    Callback(callback::Arguments),
    Override(r#override::Arguments),
    Mode(mode::Arguments),
    Check(check::Arguments),
    Explain(explain::Arguments),
    Calls(calls::Arguments),
    Monitor(monitor::Arguments),
    Top(top::Arguments),
    Report(report::Arguments),
    Review(review::Arguments),
    Audit(audit::Arguments),
    Export(export::Arguments),
    Erase(erase::Arguments),
    Attach(attach::AttachArguments),
    Detach(attach::DetachArguments),
    Store(store::Arguments),
    Plan(plan::Arguments),
    Replay(replay::Arguments),
    WhatIf(what_if::Arguments),
    Completions(completions::Arguments),
}

impl Cli {
    /// Runs the command that was given and returns the exit code.
    ///
    /// # Errors
    /// `Failure`: the message to print and the exit code.
    pub fn run(self) -> Result<Exit, Failure> {
        let client = &Client::new(&self.socket);
        match self.command {
            Command::Config(arguments) => config::run(&arguments).map(|()| Exit::Done),
            Command::Daemon(arguments) => daemon::run(&arguments).map(|()| Exit::Done),
            Command::Doctor(arguments) => doctor::run(&arguments).map(|()| Exit::Done),
            Command::Setup(arguments) => setup::run(&arguments),
            Command::Status(arguments) => status::run(&arguments, client),
            Command::Selftest(arguments) => selftest::run(&arguments, client),
            Command::Block(arguments) => block::run(&arguments, client),
            Command::Allow(arguments) => allow::run(&arguments, client),
            Command::Callback(arguments) => callback::run(&arguments, client),
            Command::Override(arguments) => r#override::run(&arguments, client),
            Command::Mode(arguments) => mode::run(&arguments, client),
            Command::Check(arguments) => check::run(&arguments, client),
            Command::Explain(arguments) => explain::run(&arguments, client),
            Command::Calls(arguments) => calls::run(&arguments, client),
            Command::Monitor(arguments) => monitor::run(&arguments, client),
            Command::Top(arguments) => top::run(&arguments, client),
            Command::Report(arguments) => report::run(&arguments, client),
            Command::Review(arguments) => review::run(&arguments, client),
            Command::Audit(arguments) => audit::run(&arguments, client),
            Command::Export(arguments) => export::run(&arguments, client),
            Command::Erase(arguments) => erase::run(&arguments, client),
            Command::Attach(arguments) => attach::attach(&arguments, client),
            Command::Detach(arguments) => attach::detach(&arguments, client),
            Command::Store(arguments) => store::run(&arguments, client),
            Command::Plan(arguments) => plan::run(&arguments, client),
            Command::Replay(arguments) => replay::run(&arguments).map(|()| Exit::Done),
            Command::WhatIf(arguments) => what_if::run(&arguments, client),
            Command::Completions(arguments) => completions::run(&arguments, Cli::command()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grammar_of_the_command_line_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_each_command_begins_with_an_example() {
        fn look(command: &clap::Command, path: &str) {
            for each in command.get_subcommands() {
                let path = format!("{path} {}", each.get_name());
                look(each, &path);
                begins_with_an_example(each, &path);
            }
        }
        fn begins_with_an_example(command: &clap::Command, path: &str) {
            let help = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            let example = help.split("\n\n").nth(1).unwrap_or_default();
            assert!(example.starts_with(path), "{path}: {help}");
        }
        look(&Cli::command(), "palang");
    }

    #[test]
    fn script_of_each_shell_completes_the_commands() {
        use crate::cli::command::completions::{Shell, script};
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = String::from_utf8(script(shell, Cli::command())).unwrap();
            for word in ["override", "what-if", "xdp_mode", "dry-run"] {
                assert_eq!(text.contains(word), word != "xdp_mode", "{shell:?} {word}");
            }
        }
    }
}
