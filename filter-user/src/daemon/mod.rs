//! The daemon: keeps the policy in the kernel's maps and answers for it. Calls flow without it.
//!
//! Read [`run`] downwards: give up privileges, load, reconcile maps and store, attach, answer,
//! watch.

pub(crate) mod accounts;
pub(crate) mod adoption;
pub(crate) mod app;
pub(crate) mod attachments;
pub(crate) mod audit_change;
pub(crate) mod block_change;
pub(crate) mod busiest;
pub(crate) mod chores;
pub(crate) mod command;
pub(crate) mod connections;
pub(crate) mod convert;
pub(crate) mod decision;
pub(crate) mod evidence;
pub(crate) mod http;
pub(crate) mod limits;
pub(crate) mod map_hold;
pub(crate) mod order;
pub(crate) mod reconcile;
pub(crate) mod reply_path;
pub(crate) mod reply_sender;
pub(crate) mod reply_turns;
pub(crate) mod role;
pub(crate) mod signals;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod store_limit;
pub(crate) mod store_thread;
pub(crate) mod switches;
pub(crate) mod task;
pub(crate) mod tasks;
pub(crate) mod watchdog;

use crate::daemon::command::redirect;
use crate::daemon::http::{auth, listen, metrics};
use crate::daemon::signals::wait_for_signal;
use crate::daemon::start::logging::log;
use crate::daemon::start::{privileges, socket};
use crate::daemon::task::asserted::Asserted;
use crate::daemon::task::housekeeping::{housekeeping, remove_ended};
use crate::daemon::task::machine_redials;
use crate::daemon::task::machine_redials::MachineRedials;
use crate::daemon::task::reconcile_loop::{initial_reconcile, keep_in_sync};
use crate::daemon::task::unread::Unread;
use crate::daemon::task::{audit_watch, ends, recorder, replies, retention, unread};
use crate::daemon::watchdog::watchdog;
use crate::sys::lock::{failed, lock};

pub use crate::daemon::convert::audit_row_of;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, oneshot};

use crate::config::Config;
use crate::daemon::accounts::Accounts;
use crate::daemon::app::App;
use crate::daemon::attachments::Attachments;
use crate::daemon::evidence::Evidence;
use crate::daemon::reply_sender::ReplySender;
use crate::daemon::start::privileges::Loader;
use crate::daemon::state::Control;
use crate::daemon::store_thread::StoreHandle;
use crate::daemon::task::auto_rate::Counter;
use crate::daemon::task::grant_watch::Reviews;
use crate::datapath::{Events, EvidenceRing, Maps, Pins, ReplyCounters, ReplyKeys, carry_over};
use crate::exit::{Exit, Failure};
use crate::store::Kind;
use crate::sys::clock;
use crate::sys::kernels;
use crate::sys::raw_ip::RawIp;

/// Calls that wait for a slow live reader.
pub(crate) const LIVE: usize = 4096;

/// How long the end waits for the last call records.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// Runs the daemon until a signal ends it. The filter remains in force.
///
/// # Errors
/// Returns an error if the configuration cannot be read, another daemon runs, or the program or
/// maps cannot be loaded. The filter is then as before.
pub fn run(path: &Path) -> Result<(), Failure> {
    let config = Config::read(path).map_err(|error| Failure::new(Exit::Usage, error))?;
    log();
    let paths = &config.paths;
    for folder in [&paths.state, &paths.runtime] {
        fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    let pins = Pins::new(&paths.pins);
    pins.make()?;
    // Two configurations may share one of them.
    let _locks = [lock(&paths.lock())?, lock(&paths.pins)?];
    let socket = socket::Bound::new(&paths.socket(), &config.group)?;
    privileges::close_files(&config)?;
    let replies = reply_sender::open(&config);
    let loader = privileges::drop_capabilities()?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))?
        .block_on(serve(config, pins, loader, socket, replies))
}

pub(crate) async fn serve(
    config: Config,
    pins: Pins,
    loader: Loader,
    socket: socket::Bound,
    (reply_sender, raw): (ReplySender, Option<RawIp>),
) -> Result<(), Failure> {
    let since = clock::now();
    let paths = config.paths.clone();
    let store_handle = StoreHandle::start(&paths.store());
    enough_room(&store_handle, config.blocks).await?;
    let (config, untested) = redirect::for_start(&store_handle, config).await;
    let mut others = pins.map_folders();
    others.retain(|folder| *folder != pins.maps(config.blocks));
    // Other folders exist until a start is complete: ours may be half filled.
    let fresh = !pins.maps(config.blocks).exists() || !others.is_empty();
    let filter = loader.load(&pins, config.blocks).await?;
    if let Some(why) = filter.slow_reader() {
        tracing::warn!("{why}; {}", kernels::advice());
    }
    let folder = filter.folder().to_owned();
    let maps = Maps::open(&folder)?;
    let mut reply_keys = ReplyKeys::open(&folder)?;
    for old in &others {
        let keys = reply_keys.carry_over(old).err();
        for error in carry_over(old, &maps, clock::boot()).into_iter().chain(keys) {
            tracing::warn!(folder = %old.display(), %error, "not carried over from an older layout");
        }
    }
    let (events, frames) = (Events::open(&folder)?, EvidenceRing::open(&folder)?);
    let reply_counters = Arc::new(ReplyCounters::open(&folder)?);
    replies::ensure_keys(&mut reply_keys)
        .map_err(|problem| Failure::new(Exit::Failed, problem.message))?;
    let accounts = Arc::new(Accounts::open(&folder)?);
    let evidence = Arc::new(Evidence::open(&folder)?);
    evidence.configure(config.evidence.is_some());

    // Without a store, rules start at a number that no stored rule can have.
    let no_store = since.as_second().unsigned_abs();
    let last_rule = store_handle.read(|reader| reader.max_rule()).await.unwrap_or(no_store);
    // A store that was restored is older than the maps.
    let in_maps = reconcile::in_maps(&folder, &maps)?;
    let last_rule = last_rule.max(in_maps.newest);
    let blocks = config.blocks;
    let interfaces = config.interfaces.clone();
    let (check_listen, metrics_listen) = (config.check_listen, config.metrics_listen);
    let socket_path = paths.socket();
    let control =
        Arc::new(Control::new(maps, folder, store_handle, config.clone(), node(), last_rule));
    control.chores.note(redirect::UNTESTED, untested);
    control.set_config(config).map_err(|problem| Failure::new(Exit::Failed, problem.message))?;
    let started = initial_reconcile(&control, in_maps, fresh, true).await;
    let attachments = Arc::new(Attachments::new(Arc::clone(&control), pins.clone(), filter));
    attachments.settle().await;
    let on = attachments.seen().iter().filter(|interface| interface.xdp.is_some()).count();
    if on < interfaces.len() {
        tracing::error!(on, configured = interfaces.len(), "the filter is not on every interface");
    }
    let mut left_behind = (Vec::new(), Vec::new());
    for old in &others {
        match recorder::left_behind(old) {
            Ok((mut events, rings)) => {
                left_behind.0.append(&mut events);
                left_behind.1.push(rings);
            }
            Err(error) => {
                tracing::warn!(folder = %old.display(), %error, "events of an older layout are lost")
            }
        }
    }
    // A program that could not be replaced continues with its maps, and root still needs to reach
    // them.
    if attachments.seen().iter().all(|found| found.xdp.is_some() || found.program.is_none()) {
        pins.remove_other_maps(blocks);
    }

    let (tasks, mut ended) = tasks::watch();
    let reply_sender = Arc::new(reply_sender);
    // Dropped at the end: from then on no call is handed over.
    let mut sending = None;
    if let Some(raw) = raw {
        let (running, end) = reply_sender::start(&control.folder, raw, Arc::clone(&reply_sender))?;
        sending = Some(running);
        tasks.spawn("the thread that sends replies", async move { _ = end.await });
    }
    let store = control.store_handle.clone();
    tasks.spawn("the store's thread", async move { store.ended().await });
    let reviews = Reviews::start(&control, &tasks);
    let live = broadcast::Sender::new(LIVE);
    let counted = Unread::default();
    let asserted = Asserted::default();
    let machines = MachineRedials::default();
    let app = App {
        control: Arc::clone(&control),
        attachments: Arc::clone(&attachments),
        accounts: Arc::clone(&accounts),
        reviews: reviews.clone(),
        live: live.clone(),
        evidence: Arc::clone(&evidence),
        reply_counters: Arc::clone(&reply_counters),
        reply_sender: Arc::clone(&reply_sender),
        unread: counted.clone(),
        asserted: asserted.clone(),
        machines: machines.clone(),
        since,
        config_problem: Arc::default(),
    };
    let listener = socket.listen()?;
    let users = limits::Users::new();
    let peer = move |who, connection| auth::Peer::new(who, &users, connection);
    let routes = http::router(app.clone());
    tasks.spawn("[api]", listen::serve("[api]", listener, connections::API, routes, peer));
    for (name, address, limits, routes) in [
        ("[api] check_listen", check_listen, connections::CHECK, http::check_router(app.clone())),
        ("[metrics] listen", metrics_listen, connections::METRICS, metrics::router(app.clone())),
    ] {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| Failure::new(Exit::Failed, format!("{name}: {address}: {error}")))?;
        let serving = listen::serve(name, listener, limits, routes, |_, connection| connection);
        tasks.spawn(name, serving);
    }
    tasks.spawn("ends", ends::run(Arc::clone(&control), reviews.news.clone()));
    let (keep_recording, stop) = oneshot::channel();
    let recording = recorder::run(
        Arc::clone(&control),
        recorder::Rings { events, frames, left_behind },
        accounts,
        recorder::Listeners {
            reviews,
            live,
            rate: Counter::start(&control, &tasks),
            asserted: asserted.clone(),
            machines: machines.clone(),
        },
        Arc::clone(&evidence),
        stop,
    );
    let recorder = tasks.spawn("call records", recording);
    tasks.spawn("interfaces", attachments::run(Arc::clone(&attachments)));
    tasks.spawn("time", housekeeping(Arc::clone(&control)));
    tasks.spawn("audit", audit_watch::run(Arc::clone(&control)));
    tasks.spawn("expiry", remove_ended(Arc::clone(&control)));
    tasks.spawn("unread calls", unread::run(Arc::clone(&control), counted, asserted));
    tasks.spawn("machine redials", machine_redials::run(Arc::clone(&control), machines));
    let keeping = replies::run(Arc::clone(&control), reply_keys, reply_counters, reply_sender);
    tasks.spawn("replies", keeping);
    tasks.spawn("retention", retention::run(Arc::clone(&control)));
    let compare = Arc::new(Notify::new());
    let keeping = keep_in_sync(Arc::clone(&control), in_maps, fresh, started, Arc::clone(&compare));
    tasks.spawn("comparison", keeping);
    if let Some(limit) = sd_notify::watchdog_enabled() {
        tasks.spawn("watchdog", watchdog(app.clone(), limit));
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(socket = %socket_path.display(), "ready");
    let broken = tokio::select! {
        ended = wait_for_signal(&app, &compare) => ended.map(|()| None)?,
        broken = ended.first() => Some(broken),
    };
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    evidence.stop();
    drop(sending);
    drop(keep_recording);
    // A disk that hangs does not delay the end.
    let _ = tokio::time::timeout(LAST_RECORDS, recorder).await;
    tracing::info!("stopped; the filter remains in force");
    broken.map_or(Ok(()), |part| {
        let message = format!(
            "a part of the daemon has ended, which never should: {part}. The daemon ends; systemd \
             starts it again, and the filter remains in force. Please report the log lines above"
        );
        tracing::error!("{message}");
        Err(Failure::new(Exit::Internal, message))
    })
}

/// Refuses maps that are too small for the stored blocks: the maps in force have them.
async fn enough_room(store_handle: &StoreHandle, capacity: u32) -> Result<(), Failure> {
    let stored = store_handle.read(|reader| reader.count_of(Kind::Block, false)).await;
    match stored {
        Ok(stored) if stored > capacity.into() => Err(Failure::new(
            Exit::Failed,
            format!(
                "full: {stored} of {capacity} blocked numbers; raise [limits] blocks. The \
                 attached filter remains in force"
            ),
        )),
        // Without a store the maps stay as they are.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Returns the name of this edge in decisions.
pub(crate) fn node() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into())
}
