//! `palang attach` and `palang detach`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::print::{self, Answer, Output, known};
use super::status;
use super::without_daemon::{By, or_directly};
use crate::client::{self, Client};
use crate::config::XdpMode;
use crate::direct;
use crate::exit::{Exit, Failure};
use crate::wire::{Attach, Interface};

/// Put the filter on an interface
///
/// palang attach ens1
///
/// Raw: name, index, native or generic, program id, problem.
#[derive(Debug, Args)]
pub struct AttachArguments {
    /// The interface
    #[arg(value_name = "IFACE")]
    interface: String,
    /// Where the program runs [default: as configured]
    #[arg(long)]
    mode: Option<Name>,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Where the program runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Name {
    /// In the network driver
    Native,
    /// After the driver, slower; any interface can
    Generic,
    /// In the driver where it can, otherwise after it
    NativeOrGeneric,
}

impl From<Name> for XdpMode {
    fn from(name: Name) -> XdpMode {
        match name {
            Name::Native => XdpMode::Native,
            Name::Generic => XdpMode::Generic,
            Name::NativeOrGeneric => XdpMode::NativeOrGeneric,
        }
    }
}

/// Take the filter off an interface, or off all: every call then reaches the SIP server
///
/// palang detach ens1
///
/// Works for root when the daemon does not answer. With --unpin nothing of Palang is left in the
/// kernel: no maps, no program for packets that leave. What is blocked stays in the store.
///
/// Raw: name, index, native or generic, program id, problem.
#[derive(Debug, Args)]
pub struct DetachArguments {
    /// The interface [default: all that have the filter]
    #[arg(value_name = "IFACE")]
    interface: Option<String>,
    /// Off all interfaces, and remove the maps too; root, the daemon must not run
    #[arg(long, conflicts_with = "interface")]
    unpin: bool,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

/// Attaches.
///
/// # Errors
/// The daemon's no, or none to ask.
pub fn attach(arguments: &AttachArguments, client: &Client) -> Result<Exit, Failure> {
    let mode = arguments.mode.map(|mode| XdpMode::from(mode).name().to_owned());
    let what = Attach { mode, dry_run: arguments.dry_run };
    let path = client::path(&["interfaces", &arguments.interface], &[]);
    let interface: Interface = client.post(&path, &what, client::LONG)?;
    let verbs = ["attached to", "attach to"];
    arguments.output.tell(&Told::new(&interface, verbs, arguments.dry_run))?;
    Ok(Exit::Done)
}

/// Detaches.
///
/// # Errors
/// The daemon's no; neither a daemon nor the kernel's maps to work on. What was done until
/// then is told.
pub fn detach(arguments: &DetachArguments, client: &Client) -> Result<Exit, Failure> {
    let dry_run = arguments.dry_run;
    if arguments.unpin {
        let interfaces = direct::unpin(dry_run)?;
        for interface in &interfaces {
            let verbs = ["detached from", "detach from"];
            arguments.output.tell(&Told::new(interface, verbs, dry_run))?;
        }
        return nothing_left(interfaces.is_empty(), arguments.output);
    }
    let tell = |interface: &Interface| {
        let told = Told::new(interface, ["detached from", "detach from"], dry_run);
        arguments.output.tell(&told)
    };
    let names = match &arguments.interface {
        Some(name) => vec![name.clone()],
        None => match or_directly(attached(client), || direct::detach(None, dry_run))? {
            (interfaces, By::Daemon) => interfaces.into_iter().map(|found| found.name).collect(),
            (interfaces, By::Hand) => {
                interfaces.iter().try_for_each(tell)?;
                return nothing_left(interfaces.is_empty(), arguments.output);
            }
        },
    };
    let mut failures: Vec<Failure> = Vec::new();
    for name in &names {
        let query = [("dry_run", dry_run.then_some("true"))];
        let path = client::path(&["interfaces", name], &query);
        let answer = client.delete(&path, client::SHORT).map(|interface| vec![interface]);
        match or_directly(answer, || direct::detach(Some(name), dry_run)) {
            Ok((interfaces, _)) => interfaces.iter().try_for_each(tell)?,
            // The other interfaces are waiting for their way out.
            Err(failure) => failures.push(failure),
        }
    }
    let Some(first) = failures.first() else {
        return nothing_left(names.is_empty(), arguments.output);
    };
    let exit = if failures.len() < names.len() { Exit::Partly } else { first.exit };
    let messages: Vec<_> = failures.iter().map(|failure| failure.message.as_str()).collect();
    Err(Failure::new(exit, messages.join("\n")))
}

fn attached(client: &Client) -> Result<Vec<Interface>, client::Error> {
    let interfaces = status::ask(client)?.interfaces.into_iter();
    Ok(interfaces.filter(|interface| interface.xdp.is_some()).collect())
}

fn nothing_left(none: bool, output: Output) -> Result<Exit, Failure> {
    if none && output.is_for_people() {
        print::written(writeln!(io::stdout(), "the filter is on no interface"))?;
    }
    Ok(Exit::Done)
}

/// `ens1: native (program 42)`, and what is wrong with it.
#[must_use]
pub fn words(interface: &Interface) -> String {
    let program = interface.program.map(|id| format!("program {id}"));
    let mut text = match (&interface.xdp, program) {
        (Some(xdp), Some(program)) => format!("{}: {xdp} ({program})", interface.name),
        (Some(xdp), None) => format!("{}: {xdp}", interface.name),
        (None, Some(program)) => format!("{}: not ours ({program})", interface.name),
        (None, None) => format!("{}: without the filter", interface.name),
    };
    if let Some(problem) = &interface.problem {
        text += &format!(": {problem}");
    }
    text
}

/// The fields of a raw line.
#[must_use]
pub fn fields(interface: &Interface) -> Vec<String> {
    vec![
        interface.name.clone(),
        known(interface.index),
        known(interface.xdp.as_ref()),
        known(interface.program),
        known(interface.problem.as_ref()),
    ]
}

#[derive(Serialize)]
#[serde(transparent)]
struct Told<'a> {
    interface: &'a Interface,
    /// The past tense, and the form after `would`.
    #[serde(skip)]
    verbs: [&'static str; 2],
    #[serde(skip)]
    dry_run: bool,
}

impl<'a> Told<'a> {
    fn new(interface: &'a Interface, verbs: [&'static str; 2], dry_run: bool) -> Told<'a> {
        Told { interface, verbs, dry_run }
    }
}

impl Answer for Told<'_> {
    fn people(&self, writer: &mut dyn Write) -> io::Result<()> {
        let now = words(self.interface);
        let name = &self.interface.name;
        let [past, would] = self.verbs;
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
            writeln!(writer, "would {would} {}", print::clean(name))?;
            return writeln!(writer, "now: {}", print::clean(&now));
        }
        writeln!(writer, "{past} {}", print::clean(name))?;
        writeln!(writer, "in force: {}", print::clean(&now))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![fields(self.interface)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_in_words() {
        let bare = Interface {
            name: "ens1".into(),
            index: Some(3),
            xdp: None,
            program: None,
            problem: None,
        };
        assert_eq!(words(&bare), "ens1: without the filter");
        let other = Interface {
            program: Some(9),
            problem: Some("another XDP program, id 9".into()),
            ..bare.clone()
        };
        assert_eq!(words(&other), "ens1: not ours (program 9): another XDP program, id 9");
        let ours = Interface { xdp: Some("generic".into()), program: Some(42), ..bare };
        assert_eq!(words(&ours), "ens1: generic (program 42)");
        assert_eq!(fields(&ours), ["ens1", "3", "generic", "42", "-"]);
    }
}
