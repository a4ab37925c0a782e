//! The daemon: keeps the policy in the kernel's maps and answers for it. Calls flow without it.
//!
//! Read [`run`] downwards: give up privileges, load, make maps and store one, attach, answer, watch.

mod access;
mod accounts;
mod api;
mod auto_rate;
mod chores;
mod control;
mod events;
mod evidence;
mod flood;
mod held;
mod import;
mod keeper;
mod limits;
mod links;
mod listen;
mod lists;
mod metrics;
mod order;
mod person;
pub(crate) mod privileges;
mod queue;
mod reconcile;
mod reports;
mod retention;
mod reviews;
mod socket;
mod tasks;
mod top;

pub use self::person::audit_row_of;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, broadcast, oneshot};

use self::accounts::Accounts;
use self::api::App;
use self::auto_rate::Counter;
use self::control::Control;
use self::evidence::Evidence;
use self::keeper::Keeper;
use self::links::Links;
use self::privileges::Loader;
use self::reconcile::InMaps;
use self::reviews::Reviews;
use crate::clock;
use crate::config::Config;
use crate::datapath::{Events, EvidenceRing, Maps, Pins, carry_over};
use crate::exit::{Exit, Failure};
use crate::kernels;
use crate::store::{Entry, Kind};
use crate::wire::Problem;

/// How often what has ended is taken out, and the clock looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the store's newest time moves on without any change.
const SEEN: Duration = Duration::from_secs(60);
/// Within this time a comparison heals what somebody changed without the daemon.
const HEALS: Duration = Duration::from_secs(60);
/// Time between two comparisons of everything but the blocks.
const COMPARE: Duration = Duration::from_secs(15);
/// Least time between two comparisons of the blocks, of which there may be a million.
const COMPARE_BLOCKS: Duration = Duration::from_secs(15);
/// How soon a first comparison that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// A start that fails is tried again for at most this share of the time.
const AGAIN_SHARE: u32 = 30;
/// Calls that wait for somebody who looks at them live and is slow.
const LIVE: usize = 4096;
/// How long the start waits for the disk.
const DISK: Duration = Duration::from_secs(5);
/// How long the end waits for the last call records.
const LAST_RECORDS: Duration = Duration::from_secs(2);
/// What it means when something fails that the daemon does by itself.
const ENDED: &str = "blocks and allows that have ended stay in the store";
const NOTES: &str = "what was done without the daemon is not adopted";
/// A wall clock that moved by more than this against boot time was set.
const STEP: SignedDuration = SignedDuration::from_secs(1);

/// Runs the daemon until it is told to stop. The filter stays where it is.
///
/// # Errors
/// A configuration that cannot be read; another daemon; a program or maps that cannot be loaded.
/// The filter is then as it was before.
pub fn run(path: &Path) -> Result<(), Failure> {
    let config = Config::read(path).map_err(|error| Failure::new(Exit::Usage, error))?;
    log();
    let paths = &config.paths;
    for folder in [&paths.state, &paths.runtime] {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    let pins = Pins::new(&paths.pins);
    pins.make()?;
    // Of both, because two configurations may share one.
    let _locks = [lock(&paths.lock())?, lock(&paths.pins)?];
    let socket = socket::Bound::new(&paths.socket(), &config.group)?;
    privileges::close_files(&config)?;
    let loader = privileges::drop_capabilities()?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?
        .block_on(serve(config, pins, loader, socket))
}

async fn serve(
    config: Config,
    pins: Pins,
    loader: Loader,
    socket: socket::Bound,
) -> Result<(), Failure> {
    let since = clock::now();
    let paths = config.paths.clone();
    let keeper = Keeper::start(&paths.store());
    enough_room(&keeper, config.blocks).await?;
    let mut others = pins.map_folders();
    others.retain(|folder| *folder != pins.maps(config.blocks));
    // Others are there until a start has come to its end: ours may be half filled.
    let fresh = !pins.maps(config.blocks).exists() || !others.is_empty();
    let filter = loader.load(&pins, config.blocks).await?;
    if let Some(why) = filter.slow_reader() {
        tracing::warn!("{why}; {}", kernels::advice());
    }
    let folder = filter.folder().to_owned();
    let maps = Maps::open(&folder)?;
    for old in &others {
        for error in carry_over(old, &maps, clock::boot()) {
            tracing::warn!("{}: not carried over: {error}", old.display());
        }
    }
    let (events, frames) = (Events::open(&folder)?, EvidenceRing::open(&folder)?);
    let accounts = Arc::new(Accounts::open(&folder)?);
    let evidence = Arc::new(Evidence::open(&folder)?);
    evidence.configure(config.evidence.is_some());

    // Without a store, numbers that none of its rules can have.
    let no_store = since.as_second().unsigned_abs();
    let last_rule = keeper.read(|reader| reader.max_rule()).await.unwrap_or(no_store);
    // A store that was restored is older than the maps.
    let in_maps = reconcile::in_maps(&folder, &maps)?;
    let last_rule = last_rule.max(in_maps.newest);
    let blocks = config.blocks;
    let interfaces = config.interfaces.clone();
    let (check_listen, metrics_listen) = (config.check_listen, config.metrics_listen);
    let socket_path = paths.socket();
    let control = Arc::new(Control::new(maps, folder, keeper, config.clone(), node(), last_rule));
    control.set_config(config).map_err(|problem| Failure::new(Exit::Failed, problem.message))?;
    let started = begin(&control, in_maps, fresh, true).await;
    let links = Arc::new(Links::new(Arc::clone(&control), pins.clone(), filter));
    links.settle().await;
    let on = links.seen().iter().filter(|interface| interface.xdp.is_some()).count();
    if on < interfaces.len() {
        tracing::error!("the filter is on {on} of {} interfaces", interfaces.len());
    }
    let mut left_behind = (Vec::new(), Vec::new());
    for old in &others {
        match events::left_behind(old) {
            Ok((mut events, rings)) => {
                left_behind.0.append(&mut events);
                left_behind.1.push(rings);
            }
            Err(error) => tracing::warn!("{}: events are lost: {error}", old.display()),
        }
    }
    // A program that could not be replaced goes on by its maps: root still has to reach them.
    if links.seen().iter().all(|found| found.xdp.is_some() || found.program.is_none()) {
        pins.remove_other_maps(blocks);
    }

    let (tasks, mut ended) = tasks::watch();
    let store = control.keeper.clone();
    tasks.spawn("the store's thread", async move { store.ended().await });
    let reviews = Reviews::start(&control, &tasks);
    let live = broadcast::Sender::new(LIVE);
    let app = App {
        control: Arc::clone(&control),
        links: Arc::clone(&links),
        accounts: Arc::clone(&accounts),
        reviews: reviews.clone(),
        live: live.clone(),
        evidence: Arc::clone(&evidence),
        since,
        config_problem: Arc::default(),
    };
    let listener = socket.listen()?;
    let users = limits::Users::new();
    let peer = move |who, connection| access::Peer::new(who, &users, connection);
    let routes = api::router(app.clone());
    tasks.spawn("[api]", listen::serve("[api]", listener, listen::API, routes, peer));
    for (name, address, limits, routes) in [
        ("[api] check_listen", check_listen, listen::CHECK, api::check_router(app.clone())),
        ("[metrics] listen", metrics_listen, listen::METRICS, metrics::router(app.clone())),
    ] {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("{name}: {address}: {error}")))?;
        let serving = listen::serve(name, listener, limits, routes, |_, connection| connection);
        tasks.spawn(name, serving);
    }
    let (keep_recording, stop) = oneshot::channel();
    let recording = events::run(
        Arc::clone(&control),
        events::Rings { events, frames, left_behind },
        accounts,
        events::Listeners { reviews, live, rate: Counter::start(&control, &tasks) },
        Arc::clone(&evidence),
        stop,
    );
    let recorder = tasks.spawn("call records", recording);
    tasks.spawn("interfaces", links::run(Arc::clone(&links)));
    tasks.spawn("time", keep_time(Arc::clone(&control)));
    tasks.spawn("expiry", take_out_ended(Arc::clone(&control)));
    tasks.spawn("retention", retention::run(Arc::clone(&control)));
    let compare = Arc::new(Notify::new());
    let keeping = keep_one(Arc::clone(&control), in_maps, fresh, started, Arc::clone(&compare));
    tasks.spawn("comparison", keeping);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tasks.spawn("watchdog", watchdog(app.clone(), limit));
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("ready on {}", socket_path.display());
    let broken = tokio::select! {
        told = until_told(&app, &compare) => told.map(|()| None)?,
        broken = ended.first() => Some(broken),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    evidence.stop();
    drop(keep_recording);
    // A disk that hangs does not hold us up.
    let _ = tokio::time::timeout(LAST_RECORDS, recorder).await;
    tracing::info!("stopped; the filter stays in force");
    broken.map_or(Ok(()), |part| {
        let message = format!(
            "a part of the daemon has ended, which never should: {part}. The daemon ends with it, \
             and systemd starts it again; the filter stays in force. Report what the log says before"
        );
        tracing::error!("{message}");
        Err(Failure::new(Exit::Internal, message))
    })
}

/// Refuses to go on with maps that the stored blocks do not fit into: the maps in force have them.
async fn enough_room(keeper: &Keeper, capacity: u32) -> Result<(), Failure> {
    let stored = keeper.read(|reader| reader.count_of(Kind::Block, false)).await;
    match stored {
        Ok(stored) if stored > capacity.into() => Err(Failure::new(
            Exit::Failed,
            format!(
                "full: {stored} of {capacity} blocked numbers; raise [limits] blocks. Whatever is \
                 attached goes on"
            ),
        )),
        // Without a store the maps stay as they are.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes store and maps one for the first time; `false`: the store cannot be read, the maps stay
/// as they are, and it has to be tried again.
async fn begin(control: &Arc<Control>, in_maps: InMaps, fresh: bool, alone: bool) -> bool {
    if alone {
        // A disk that is full says so at once, one that hangs would hold up everything.
        let commit = control.keeper.write(|store| Ok(store.seen(clock::now())?));
        if tokio::time::timeout(DISK, commit).await.is_err() {
            tracing::error!("the disk does not answer: the maps stay as they are");
            return false;
        }
    }
    let made_one = async {
        if held::look(control, in_maps).await? {
            return Ok(None);
        }
        let found = reconcile::at_start(control, fresh, alone).await?;
        held::note_followed(control).await?;
        Ok::<_, Problem>(Some(found))
    };
    match made_one.await {
        Ok(None) => {
            control.note_comparison(None);
            true
        }
        Ok(Some(found)) => {
            control.drift.fetch_add(found.repaired, Ordering::Relaxed);
            tracing::info!(
                blocks = found.blocks,
                repaired = found.repaired,
                adopted = found.adopted,
                "store and maps are one"
            );
            control.note_comparison(None);
            true
        }
        Err(problem) => {
            control.note_comparison(Some(problem.message));
            false
        }
    }
}

/// Waits for signals: SIGHUP reads the configuration again, SIGUSR1 compares store and maps now,
/// SIGTERM and SIGINT end the daemon.
async fn until_told(app: &App, compare: &Notify) -> Result<(), Failure> {
    let wait = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, error));
    let mut hangup = wait(SignalKind::hangup())?;
    let mut user1 = wait(SignalKind::user_defined1())?;
    let mut terminate = wait(SignalKind::terminate())?;
    let mut interrupt = wait(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(app, compare).await,
            _ = user1.recv() => compare.notify_one(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    Ok(())
}

/// Reads the configuration again; one with an error leaves the old one in force.
async fn reload(app: &App, compare: &Notify) {
    let old = app.control.config();
    let read = Config::read(&old.path).and_then(|new| {
        let cannot = old.changes_needing_restart(&new);
        if cannot.is_empty() {
            Ok(new)
        } else {
            Err(format!("{} cannot change while the daemon runs: restart it", cannot.join(", ")))
        }
    });
    let done = read.and_then(|new| {
        let interfaces = new.interfaces.clone();
        app.control.set_config(new).map_err(|problem| problem.message)?;
        Ok(interfaces)
    });
    let entry = Entry::new(clock::now(), "daemon", "reload");
    let problem = match done {
        Ok(interfaces) => {
            let gone: Vec<_> =
                old.interfaces.iter().filter(|name| !interfaces.contains(name)).cloned().collect();
            app.links.leave(&gone).await;
            app.links.settle().await;
            tracing::info!("the configuration was read again");
            app.evidence.configure(app.control.config().evidence.is_some());
            if app.control.config().redial != old.redial {
                compare.notify_one();
            }
            app.control.keeper.keep(move |store| store.audit(entry.clone())).await;
            None
        }
        Err(error) => {
            tracing::error!("the old configuration stays in force: {error}");
            Some(error)
        }
    };
    *app.config_problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
}

/// Takes out what has ended. When much has, it is all out as soon as the disk can.
async fn take_out_ended(control: Arc<Control>) {
    let mut tick = tokio::time::interval(TICK);
    loop {
        tick.tick().await;
        while control.chores.tried(ENDED, reconcile::sweep(&control).await) == Some(true) {}
    }
}

/// Notices when somebody sets the clock, and what was done without the daemon.
async fn keep_time(control: Arc<Control>) {
    let mut tick = tokio::time::interval(TICK);
    let mut seen = Instant::now();
    let mut offset = clock::offset();
    let mut head = None;
    loop {
        tick.tick().await;
        // Also where nobody can alter it afterwards: a chain that is cut short looks whole.
        let newest = control.keeper.read(|reader| reader.audit_head()).await.ok();
        if newest != head
            && let Some(newest) = &newest
        {
            tracing::info!("audit head {newest}");
        }
        head = newest;
        let now = clock::offset();
        let step = now.saturating_sub(offset);
        if step.abs() > STEP {
            tracing::warn!("the clock was set by {step:#}");
            let entry =
                Entry::new(clock::now(), "daemon", "clock step").with("seconds", step.as_secs());
            control.keeper.keep(move |store| store.audit(entry.clone())).await;
            if let Err(problem) = reconcile::compare(&control).await {
                tracing::error!("{}", problem.message);
            }
        }
        offset = now;
        control.chores.tried(NOTES, reconcile::learn_noted(&control).await);
        if seen.elapsed() > SEEN {
            seen = Instant::now();
            let _ = control.keeper.write(|store| Ok(store.seen(clock::now())?)).await;
        }
    }
}

/// Compares store and maps, again and again, and when asked to.
async fn keep_one(
    control: Arc<Control>,
    in_maps: InMaps,
    fresh: bool,
    mut started: bool,
    asked: Arc<Notify>,
) {
    let mut pause = AGAIN;
    while !started {
        tokio::time::sleep(pause).await;
        let begun = Instant::now();
        started = begin(&control, in_maps, fresh, false).await;
        pause = AGAIN.max(begun.elapsed() * AGAIN_SHARE);
    }
    let mut due = Instant::now() + HEALS - COMPARE;
    let mut of_blocks = None;
    loop {
        let is_asked = tokio::time::timeout(COMPARE, asked.notified()).await.is_ok();
        let begun = Instant::now();
        let is_due = is_asked || begun >= due;
        let compared = match is_due {
            true => reconcile::compare(&control).await,
            false => reconcile::compare_settings(&control).await,
        };
        if let Ok(found) = &compared
            && found.repaired + found.adopted > 0
        {
            tracing::warn!(
                repaired = found.repaired,
                adopted = found.adopted,
                "store and maps differed"
            );
        }
        let problem = compared.err().map(|problem| problem.message);
        if is_due {
            of_blocks.clone_from(&problem);
            let took = begun.elapsed();
            // What is changed while a comparison runs may be found by the next one only.
            due = Instant::now() + HEALS.saturating_sub(COMPARE + 2 * took).max(COMPARE_BLOCKS);
            if is_asked {
                tracing::info!("store and maps were compared in {took:?}");
            }
        }
        control.note_comparison(problem.or_else(|| of_blocks.clone()));
    }
}

/// Tells systemd that the daemon lives, each time after the maps were read and somebody could
/// have been answered. A store that hangs is no reason to be killed: the override has to work.
async fn watchdog(app: App, limit: Duration) {
    let mut tick = tokio::time::interval(limit / 3);
    loop {
        tick.tick().await;
        let status = tokio::time::timeout(limit / 3, app.status()).await;
        let text = match status {
            Ok(Ok(status)) => match status.findings.first() {
                Some(finding) => finding.message.clone(),
                None => format!("{} blocks, mode {}", status.blocks.unwrap_or(0), status.mode.mode),
            },
            Ok(Err(problem)) => {
                tracing::error!("unhealthy: {}", problem.message);
                continue;
            }
            Err(_) if app.control.maps.settings().is_ok() => "the store does not answer".to_owned(),
            Err(_) => continue,
        };
        let _ = sd_notify::notify(&[
            sd_notify::NotifyState::Watchdog,
            sd_notify::NotifyState::Status(&text),
        ]);
    }
}

/// Structured to the journal when systemd runs us, else to standard error.
fn log() {
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let filter = tracing_subscriber::EnvFilter::try_from_env("PALANG_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let registry = tracing_subscriber::registry().with(filter);
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let done = match journal {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let plain = tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time();
            registry.with(plain.with_target(false)).try_init()
        }
    };
    if let Err(error) = done {
        eprintln!("palang: no log: {error}");
    }
}

/// Only one daemon may write to store and maps. `path` is a file, made where it is missing, or a
/// folder: a BPF file system has no files.
///
/// # Errors
/// Somebody holds it; a file that cannot be made.
pub fn lock(path: &Path) -> Result<Flock<fs::File>, Failure> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    if !path.is_dir() {
        options.write(true).create(true).truncate(false);
    }
    let file = options.open(path).map_err(|error| failed(path, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        Failure::new(
            Exit::Failed,
            format!("a palang daemon holds {}: stop it first", path.display()),
        )
    })
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    let denied = error.kind() == io::ErrorKind::PermissionDenied;
    let exit = if denied { Exit::Refused } else { Exit::Failed };
    Failure::new(exit, format!("{}: {error}", path.display()))
}

/// The name of this edge in decisions.
fn node() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into())
}
