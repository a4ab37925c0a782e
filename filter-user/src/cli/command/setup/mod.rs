//! `palang setup`: from an installed package to a filter in mode observe.

mod carrier;
mod file;
mod question;
mod service;
mod summary;
mod undo;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use nix::unistd::geteuid;

use self::carrier::Carriers;
use self::question::Country;
use self::service::UNIT;
use self::summary::Summary;
use self::undo::Undo;
use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Attach, ConfigInForce, Interface, Mode, SetMode, Status};
use crate::bringup::doctor;
use crate::bringup::doctor::State;
use crate::bringup::setup::{self, Change, Listener, Sends, Wanted, WantedTrunk};
use crate::cli::input::agreement;
use crate::cli::input::options::ChangeOptions;
use crate::cli::input::plan;
use crate::cli::output;
use crate::cli::output::checks;
use crate::cli::output::in_force;
use crate::cli::output::interface::{Name, describe};
use crate::cli::output::plan_check::Checked;
use crate::cli::output::{Answer as _, Output};
use crate::config::limits;
use crate::datapath::Pins;
use crate::exit::{Exit, Failure};
use crate::model::plan::format::Format;
use crate::model::plan::identity::Identity;
use crate::replay::plan_check::PlanCheck;
use crate::sys::netlink;

/// Longest wait for the daemon to apply a configuration, or to attach.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Check this machine, write the configuration and attach the filter to an interface, in mode observe
///
/// palang setup ens1 --country ID --trunk name=telkom,source=192.0.2.0/24,identity=pai
///
/// Needs root. Asks for the country, the trunks and what they send, where no option and no configuration says
/// it. Checks the plans on a capture, and on the calls of the last hour if the daemon has records. First shows the checks and the plan, then asks. No call is refused until
/// `palang mode enforce`. If a step fails, all steps are undone. Setup changes an existing
/// configuration only where it must, and never one that has other interfaces. Without systemd it
/// writes the configuration and says how to start the daemon (exit 6).
///
/// Raw: interface, native or generic, mode, configuration, ports, country code, country, trunks.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Interface on which calls arrive
    #[arg(value_name = "IFACE")]
    interface: String,
    /// UDP port that is read as SIP; may be repeated [default: ports of the running SIP servers,
    /// otherwise 5060]
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Country of the numbers, two letters of ISO 3166: its preset is the plan of every trunk
    #[arg(long, value_name = "CC", conflicts_with = "country_code")]
    country: Option<String>,
    /// Country code of the numbers, without a preset; 62 is Indonesia
    #[arg(long, value_name = "N")]
    country_code: Option<String>,
    /// Header that names the caller, as in the configuration: from, pai, pai-else-from
    #[arg(long, value_name = "IDENTITY", value_parser = plan::identity)]
    identity: Option<Identity>,
    /// Format of numbers without +, instead of those of the plan; may be repeated
    #[arg(long, value_name = "FORMAT", value_parser = plan::format)]
    format: Vec<Format>,
    /// Trunk by the keys name, source, identity and format; may be repeated [default: every source is one]
    ///
    /// The keys source and format may be repeated too: name=east,source=192.0.2.1,source=192.0.2.2.
    #[arg(long, value_name = "KEY=VALUE,KEY=VALUE", value_parser = carrier::trunk)]
    trunk: Vec<WantedTrunk>,
    /// Capture of calls to check the plans on; may be repeated
    #[arg(long, value_name = "FILE")]
    capture: Vec<PathBuf>,
    /// Where the program runs [default: as configured, native]
    #[arg(long)]
    mode: Option<Name>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    change: ChangeOptions,
    #[command(flatten)]
    output: Output,
}

/// Runs the `palang setup` command.
///
/// # Errors
/// `Partly` if only the configuration is written; any other error means that no change is left.
pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    if !geteuid().is_root() {
        let message = format!("only root can set up: sudo palang setup {}", arguments.interface);
        return Err(Failure::new(Exit::Refused, message));
    }
    let found = Found::look(arguments)?;
    let is_table = arguments.output.is_table();
    if is_table {
        output::written(found.print(&mut io::stdout()))?;
    }
    if let Some(count) = found.failed() {
        let message = format!(
            "checks failed: {count}, nothing was changed:\n{}fix them and run setup again; all \
             checks: palang doctor",
            checks::table(&found.trouble(State::Fail))
        );
        return Err(Failure::new(Exit::Failed, message));
    }
    if arguments.change.dry_run {
        arguments.output.print(&found.summary(None, true))?;
        return Ok(Exit::Done);
    }
    if !arguments.yes && !found.plan.is_empty() && !agreement::agreed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed"));
    }
    let mut undo = Undo(Vec::new());
    match found.carry_out(&mut undo) {
        Ok(Some(status)) => {
            arguments.output.print(&found.summary(Some(&status), false))?;
            Ok(Exit::Done)
        }
        Ok(None) => Err(Failure::new(
            Exit::Partly,
            format!(
                "{file} is written. There is no systemd unit {UNIT} to start the daemon: run `palang \
                 daemon --config {file}`, then again `palang setup {name} --config {file}`",
                file = arguments.config.display(),
                name = arguments.interface
            ),
        )),
        Err(failure) => {
            let message = format!("{}\n{}", failure.message, undo.all());
            Err(Failure::new(failure.exit, message))
        }
    }
}

/// Answers to all questions, from the options or from a person.
struct Answers {
    country: Option<String>,
    country_code: Option<String>,
    carriers: Carriers,
    captures: Vec<PathBuf>,
}

impl Answers {
    /// Asks what neither an option nor the configuration says.
    fn of(arguments: &Arguments, before: Option<&str>) -> Result<Answers, Failure> {
        let may_ask = !arguments.yes && agreement::is_possible();
        let mut answers = Answers {
            country: arguments.country.as_ref().map(|country| country.to_ascii_uppercase()),
            country_code: arguments.country_code.clone(),
            carriers: Carriers {
                sends: Sends { identity: arguments.identity, formats: arguments.format.clone() },
                trunks: arguments.trunk.clone(),
            },
            captures: arguments.capture.clone(),
        };
        if setup::has_country(before) {
            return Ok(answers);
        }
        if answers.country.is_none() && answers.country_code.is_none() {
            match question::country(may_ask)? {
                Country::Preset(preset) => answers.country = Some(preset.country.to_owned()),
                Country::Code(code) => answers.country_code = Some(code),
            }
        }
        if may_ask && answers.carriers == Carriers::default() {
            answers.carriers = question::carriers()?;
        }
        if may_ask && answers.captures.is_empty() {
            answers.captures = question::captures()?;
        }
        Ok(answers)
    }
}

/// Checks the plans of the changed configuration on captures; `None` without one.
fn checked(change: &Change, captures: &[PathBuf]) -> Result<Option<Checked>, Failure> {
    if captures.is_empty() {
        return Ok(None);
    }
    let mut check = PlanCheck::new(&change.config.policy, false);
    for path in captures {
        check.capture(path, |_| {}).map_err(|error| {
            Failure::new(Exit::Failed, format!("{}: {error}; nothing was changed", path.display()))
        })?;
    }
    Ok(Some(Checked::of_captures(check)))
}

/// How the daemon is started and reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    /// It runs under systemd.
    Service,
    /// It runs without systemd.
    Process,
    /// It does not run; systemd can start it.
    StartedByUs,
    /// It does not run and has to be started by hand.
    ByHand,
}

/// Holds what was found on this machine and the plan that follows.
struct Found {
    interface: String,
    change: Change,
    listeners: Vec<Listener>,
    checks: Vec<doctor::Check>,
    /// How well the plans fit the captures, if any.
    checked: Option<Checked>,
    client: Client,
    daemon: Daemon,
    /// Steps to do; empty if everything is done.
    plan: Vec<String>,
}

impl Found {
    fn look(arguments: &Arguments) -> Result<Found, Failure> {
        let name = &arguments.interface;
        let usage = |error: setup::Error| Failure::new(Exit::Usage, error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        let links = runtime
            .block_on(netlink::links())
            .map_err(|error| Failure::new(Exit::Failed, format!("interfaces: {error}")))?;
        let Some(link) = links.iter().find(|link| link.name == *name) else {
            let names: Vec<_> = links.iter().map(|link| link.name.as_str()).collect();
            let message = format!("no interface {name}; there are: {}", names.join(", "));
            return Err(Failure::new(Exit::NotFound, message));
        };
        let before = setup::read(&arguments.config).map_err(usage)?;
        let answers = Answers::of(arguments, before.as_deref())?;
        let listeners = setup::sip_listeners();
        let ports = match arguments.port.as_slice() {
            [] if setup::is_untouched(before.as_deref()) && !listeners.is_empty() => {
                Some(listeners.iter().map(|listener| listener.port).collect())
            }
            [] => None,
            ports => Some(ports.to_vec()),
        };
        let wanted = Wanted {
            interface: name.clone(),
            ports,
            country: answers.country,
            country_code: answers.country_code,
            sends: answers.carriers.sends,
            trunks: answers.carriers.trunks,
            xdp_mode: arguments.mode.map(Into::into),
        };
        let change = setup::change(&arguments.config, before, &wanted).map_err(usage)?;
        let checked = checked(&change, &answers.captures)?;
        let paths = &change.config.paths;
        if let Some(xdp) = link.xdp
            && !Pins::new(&paths.pins).link(name).exists()
        {
            let message = format!(
                "{name} already has another XDP program, id {id}: bpftool prog show id {id} shows \
                 which. An interface takes one program; if nothing needs it: ip link set dev \
                 {name} xdp off",
                id = xdp.program
            );
            return Err(Failure::new(Exit::Refused, message));
        }
        let client = Client::new(&paths.socket());
        let running = match in_force::ask(&client) {
            Ok(status) => Some(status),
            Err(client::Error::Silent(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let daemon = match &running {
            Some(_) if service::unit("is-active", &arguments.config) => Daemon::Service,
            Some(_) => Daemon::Process,
            None if service::unit("cat", &arguments.config) => Daemon::StartedByUs,
            None => Daemon::ByHand,
        };
        let on = running.as_ref().is_some_and(|status| attached(status, name).is_some());
        if let Some(status) = running.filter(|_| !on)
            && status.mode.mode != "observe"
        {
            let message = format!(
                "the mode is already {}, so {name} would refuse calls at once: run palang \
                 mode observe first, or attach it with palang attach {name}",
                status.mode.mode
            );
            return Err(Failure::new(Exit::Refused, message));
        }
        let checks = runtime.block_on(doctor::checks_with(&change.config));
        let plan = plan(&change, name, daemon, on);
        Ok(Found {
            interface: name.clone(),
            change,
            listeners,
            checks,
            checked,
            client,
            daemon,
            plan,
        })
    }

    fn trouble(&self, least: State) -> Vec<doctor::Check> {
        let wanted = |state| match least {
            State::Fail => state == State::Fail,
            State::Ok | State::Warn => state != State::Ok,
        };
        self.checks.iter().filter(|check| wanted(check.state)).cloned().collect()
    }

    /// Returns the number of failed checks, if any.
    fn failed(&self) -> Option<usize> {
        Some(self.trouble(State::Fail).len()).filter(|count| *count > 0)
    }

    fn print(&self, writer: &mut dyn Write) -> io::Result<()> {
        let config = &self.change.config;
        let trouble = self.trouble(State::Warn);
        if trouble.is_empty() {
            writeln!(writer, "checks: all {} ok", self.checks.len())?;
        } else {
            writeln!(writer, "checks that are not ok, of {}:", self.checks.len())?;
            write!(writer, "{}", checks::table(&trouble))?;
        }
        match self.listeners.as_slice() {
            [] => writeln!(writer, "SIP servers: no open UDP port found")?,
            listeners => {
                let servers = listeners.iter().map(|listener| {
                    let process = listener.process.as_deref().unwrap_or("unknown");
                    format!("{} ({})", listener.port, output::clean(process))
                });
                writeln!(writer, "SIP servers: UDP {}", servers.collect::<Vec<_>>().join(", "))?;
            }
        }
        if let Some(checked) = &self.checked {
            write!(writer, "\nthe plans on the captures: ")?;
            checked.write_table(writer)?;
        }
        writeln!(writer, "\n{} will contain:", config.path.display())?;
        for line in config.summary() {
            writeln!(writer, "  {}", output::clean(&line))?;
        }
        writeln!(writer, "\nplan:")?;
        if self.plan.is_empty() {
            return writeln!(writer, "  nothing to do\n");
        }
        for (number, line) in self.plan.iter().enumerate() {
            writeln!(writer, "  {}. {}", number + 1, output::clean(line))?;
        }
        writeln!(writer)
    }

    fn summary(&self, status: Option<&Status>, dry_run: bool) -> Summary {
        let config = &self.change.config;
        let interface = status.and_then(|status| attached(status, &self.interface)).cloned();
        Summary {
            interface: self.interface.clone(),
            xdp: interface.as_ref().and_then(|found| found.xdp.clone()),
            mode: status.map(|status| status.mode.mode.clone()),
            config: config.path.display().to_string(),
            ports: config.policy.ports.clone(),
            country_code: config.policy.trunks[0].profile.plan.country.to_string(),
            country: config.policy.trunks[0].country,
            trunks: config.policy.trunks.iter().skip(1).map(|trunk| trunk.name.clone()).collect(),
            checked: self.checked.clone(),
            plan: self.plan.clone(),
            dry_run,
            description: interface.as_ref().map(describe),
        }
    }

    /// Carries out the plan; `None` if there is no daemon and systemd cannot start one.
    fn carry_out(&self, undo: &mut Undo) -> Result<Option<Status>, Failure> {
        let path = &self.change.path;
        if self.change.is_one() {
            file::write(&self.change)?;
            let before = self.change.before.clone();
            let path = path.clone();
            let done = format!("{} restored", path.display());
            undo.push(done, move || file::put_back(&path, before));
        }
        match self.daemon {
            Daemon::ByHand => return Ok(None),
            Daemon::StartedByUs => self.start(undo)?,
            Daemon::Service | Daemon::Process => {
                if self.change.is_one() {
                    self.reload(undo)?;
                }
            }
        }
        let name = &self.interface;
        let now: Status = in_force::ask(&self.client)?;
        if attached(&now, name).is_none() {
            let url = client::path(&["interfaces", name], &[]);
            let what = Attach { mode: None, dry_run: false };
            let _: Interface = self.client.post(&url, &what, client::LONG)?;
            let (client, url) = (self.client.clone(), url);
            undo.push(format!("filter removed from {name}"), move || {
                let gone: Result<Interface, _> = client.delete(&url, client::LONG);
                gone.map(drop).map_err(Failure::from)
            });
        }
        let status = until(&format!("{name} has the filter"), || {
            let status = in_force::ask(&self.client).ok()?;
            attached(&status, name).is_some().then_some(status)
        })?;
        Ok(Some(status))
    }

    /// Starts the unit. The filter stays off until the mode is observe: the store of an earlier
    /// installation may have enforce.
    fn start(&self, undo: &mut Undo) -> Result<(), Failure> {
        let pins = Pins::new(&self.change.config.paths.pins);
        let name = &self.interface;
        pins.make()?;
        if !pins.is_off(name) {
            pins.detach(name)?;
            let (pins, name) = (pins.clone(), name.clone());
            undo.push("mark that keeps the filter off removed".to_owned(), move || {
                pins.forget_off(&name);
                Ok(())
            });
        }
        undo.push(format!("{UNIT} stopped and disabled"), || {
            service::systemctl(&["disable", "--now", UNIT])
        });
        service::systemctl(&["enable", "--now", UNIT]).map_err(|failure| {
            let message = format!("{}\nsee: journalctl -u {UNIT} -n 20", failure.message);
            Failure::new(failure.exit, message)
        })?;
        until("the daemon answers", || in_force::ask(&self.client).ok())?;
        let path = client::path(&["mode"], &[]);
        let what = SetMode { mode: "observe".to_owned(), seconds: None, dry_run: false };
        let mode: Mode = self.client.get(&path, client::SHORT)?;
        if mode.mode != what.mode {
            let _: Mode = self.client.put(&path, &what, client::LONG)?;
        }
        Ok(())
    }

    fn reload(&self, undo: &mut Undo) -> Result<(), Failure> {
        let socket = self.change.config.paths.socket();
        let daemon = self.daemon;
        let reload = move || match daemon {
            Daemon::Service => service::systemctl(&["reload", UNIT]),
            Daemon::Process | Daemon::StartedByUs | Daemon::ByHand => service::hang_up(&socket),
        };
        let again = reload.clone();
        // The reload has to be undone last, after the file was restored.
        undo.0.insert(0, ("daemon reloaded".to_owned(), Box::new(again)));
        reload()?;
        let wanted = &self.change.config.text;
        let in_force = until("the daemon has read the configuration", || {
            let path = client::path(&["config"], &[]);
            let found: ConfigInForce = self.client.get(&path, client::SHORT).ok()?;
            (found.text == *wanted || found.problem.is_some()).then_some(found)
        })?;
        match in_force.problem {
            None => Ok(()),
            Some(problem) => {
                let message = format!("the daemon rejects the configuration: {problem}");
                Err(Failure::new(Exit::Failed, message))
            }
        }
    }
}

fn plan(change: &Change, name: &str, daemon: Daemon, on: bool) -> Vec<String> {
    let mut plan = Vec::new();
    let file = change.path.display();
    if change.is_one() {
        let verb = if change.before.is_some() { "change" } else { "write" };
        plan.push(format!("{verb} {file}; its comments and other settings stay"));
    }
    match daemon {
        Daemon::ByHand => {
            plan.push(format!("nothing more: there is no unit {UNIT} to start the daemon"));
            return plan;
        }
        Daemon::StartedByUs => {
            plan.push(format!("systemctl enable --now {UNIT}, mode observe"));
        }
        Daemon::Service if change.is_one() => plan.push(format!("systemctl reload {UNIT}")),
        Daemon::Process if change.is_one() => {
            plan.push("reload the running daemon (SIGHUP)".to_owned());
        }
        Daemon::Service | Daemon::Process => {}
    }
    if !on {
        let mode = change.config.xdp_mode.name();
        plan.push(format!(
            "attach the filter to {name} ({mode}): calls are judged and counted, none is refused. The \
             card's link may go down for a moment"
        ));
    }
    plan
}

fn attached<'a>(status: &'a Status, name: &str) -> Option<&'a Interface> {
    status.interfaces.iter().find(|found| found.name == name && found.xdp.is_some())
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let message = format!("timeout: waited {} s until {what}", PATIENCE.as_secs());
            return Err(Failure::new(Exit::Failed, message));
        }
        std::thread::sleep(LOOK);
    }
}
