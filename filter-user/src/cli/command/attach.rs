//! `palang attach` and `palang detach`.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Attach, Interface};
use crate::cli::fallback::or_directly;
use crate::cli::input::options::ChangeOptions;
use crate::cli::output::change::By;
use crate::cli::output::in_force;
use crate::cli::output::interface::{Name, describe, fields};
use crate::cli::output::{self, Answer, Output};
use crate::exit::{Exit, Failure};
use crate::model::xdp_mode::XdpMode;
use crate::offline;

/// Attach the filter to an interface
///
/// palang attach ens1
///
/// Raw: name, index, native or generic, program id, problem.
#[derive(Debug, Args)]
pub struct AttachArguments {
    /// The interface
    #[arg(value_name = "IFACE")]
    pub(crate) interface: String,
    /// Where the program runs [default: as configured]
    #[arg(long)]
    pub(crate) mode: Option<Name>,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) output: Output,
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

/// Remove the filter from an interface, or from all: every call then reaches the SIP server
///
/// palang detach ens1
///
/// Works for root when the daemon does not answer. --unpin leaves nothing of Palang in the kernel: no
/// maps, no program for outgoing packets. The blocks stay in the store.
///
/// Raw: name, index, native or generic, program id, problem.
#[derive(Debug, Args)]
pub struct DetachArguments {
    /// The interface [default: every interface with the filter]
    #[arg(value_name = "IFACE")]
    pub(crate) interface: Option<String>,
    /// Detach from all interfaces and remove the maps; needs root and a stopped daemon
    #[arg(long, conflicts_with = "interface")]
    unpin: bool,
    #[command(flatten)]
    pub(crate) change: ChangeOptions,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Attaches the filter to an interface.
///
/// # Errors
/// Returns an error if the daemon refuses or cannot be reached.
pub fn attach(arguments: &AttachArguments, client: &Client) -> Result<Exit, Failure> {
    let mode = arguments.mode.map(|mode| XdpMode::from(mode).name().to_owned());
    let what = Attach { mode, dry_run: arguments.change.dry_run };
    let path = client::path(&["interfaces", &arguments.interface], &[]);
    let interface: Interface = client.post(&path, &what, client::LONG)?;
    let verbs = ["attached to", "attach to"];
    arguments.output.print(&InterfaceChange::new(&interface, verbs, arguments.change.dry_run))?;
    Ok(Exit::Done)
}

/// Detaches the filter. Each interface is printed as soon as it is done.
///
/// # Errors
/// `Partly` if some interfaces failed; otherwise returns an error if the daemon refuses, and
/// `NoDaemon` if neither it nor the kernel's maps can be used.
pub fn detach(arguments: &DetachArguments, client: &Client) -> Result<Exit, Failure> {
    let dry_run = arguments.change.dry_run;
    if arguments.unpin {
        let interfaces = offline::unpin(dry_run)?;
        for interface in &interfaces {
            let verbs = ["detached from", "detach from"];
            arguments.output.print(&InterfaceChange::new(interface, verbs, dry_run))?;
        }
        return nothing_left(interfaces.is_empty(), arguments.output);
    }
    let tell = |interface: &Interface| {
        let change = InterfaceChange::new(interface, ["detached from", "detach from"], dry_run);
        arguments.output.print(&change)
    };
    let names = match &arguments.interface {
        Some(name) => vec![name.clone()],
        None => match or_directly(attached(client), || offline::detach(None, dry_run))? {
            (interfaces, By::Daemon) => interfaces.into_iter().map(|found| found.name).collect(),
            (interfaces, By::Offline) => {
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
        match or_directly(answer, || offline::detach(Some(name), dry_run)) {
            Ok((interfaces, _)) => interfaces.iter().try_for_each(tell)?,
            // The other interfaces still have to be detached.
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

pub(crate) fn attached(client: &Client) -> Result<Vec<Interface>, client::Error> {
    let interfaces = in_force::ask(client)?.interfaces.into_iter();
    Ok(interfaces.filter(|interface| interface.xdp.is_some()).collect())
}

fn nothing_left(none: bool, output: Output) -> Result<Exit, Failure> {
    if none && output.is_table() {
        output::written(writeln!(io::stdout(), "the filter is on no interface"))?;
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct InterfaceChange<'a> {
    pub(crate) interface: &'a Interface,
    /// The past tense, and the base form.
    #[serde(skip)]
    verbs: [&'static str; 2],
    #[serde(skip)]
    pub(crate) dry_run: bool,
}

impl<'a> InterfaceChange<'a> {
    pub(crate) fn new(
        interface: &'a Interface,
        verbs: [&'static str; 2],
        dry_run: bool,
    ) -> InterfaceChange<'a> {
        InterfaceChange { interface, verbs, dry_run }
    }
}

impl Answer for InterfaceChange<'_> {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let now = describe(self.interface);
        let name = &self.interface.name;
        let [past, base] = self.verbs;
        if self.dry_run {
            writeln!(writer, "dry run, nothing was changed")?;
            writeln!(writer, "would {base} {}", output::clean(name))?;
            return writeln!(writer, "now: {}", output::clean(&now));
        }
        writeln!(writer, "{past} {}", output::clean(name))?;
        writeln!(writer, "in force: {}", output::clean(&now))
    }

    fn raw(&self) -> Vec<Vec<String>> {
        vec![fields(self.interface)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_description_names_mode_and_problem() {
        let bare = Interface {
            name: "ens1".into(),
            index: Some(3),
            xdp: None,
            program: None,
            problem: None,
            carrier: Some(true),
            replies_by_daemon: None,
        };
        assert_eq!(describe(&bare), "ens1: no filter");
        let other = Interface {
            program: Some(9),
            problem: Some("another XDP program, id 9".into()),
            ..bare.clone()
        };
        assert_eq!(describe(&other), "ens1: not ours (program 9): another XDP program, id 9");
        let ours = Interface { xdp: Some("generic".into()), program: Some(42), ..bare };
        assert_eq!(describe(&ours), "ens1: generic (program 42)");
        assert_eq!(fields(&ours), ["ens1", "3", "generic", "42", "-"]);
    }
}
