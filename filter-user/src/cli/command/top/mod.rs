//! `palang top`.

pub(crate) mod draw;
pub(crate) mod tables;
pub(crate) mod view;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::Top;
use crate::cli::command::top::view::{Connection, Measuring, View};
use crate::datapath::Statistics;
use crate::exit::{Exit, Failure};

/// Watch the gate live: attempts, trunks, busiest callers; quit with q
///
/// palang top
///
/// Updated once a second: attempts/s and refused share, per trunk; most refused callers; time per packet; interfaces;
/// lost events. Attempts are INVITEs as the kernel counts them, retransmissions included. Quit with q, Esc or Ctrl-C.
/// Needs a terminal of 80x24; scripts can use `palang monitor` and `palang status`. Without colours: NO_COLOR=1.
///
/// Time per packet needs root (CAP_SYS_ADMIN): while this is open, the kernel measures all BPF programs, which costs
/// each packet some nanoseconds. Everything else needs the role read.
#[derive(Debug, Args)]
pub struct Arguments {}

/// Interval between checks for keys and news.
const LOOK: Duration = Duration::from_millis(200);
/// Wait before the next request if the daemon is gone.
const AGAIN: Duration = Duration::from_secs(1);
/// Longest time that the screen may take to close after a signal.
const GRACE: Duration = Duration::from_secs(1);
/// Silence after which the daemon counts as hanging.
const SILENCE: Duration = Duration::from_secs(4);

/// News from the daemon, or the error that ended them.
enum News {
    Top(Box<Top>),
    Gone(client::Error),
}

/// Shows the screen until the user quits.
///
/// # Errors
/// `Usage` without a terminal; otherwise returns an error if the daemon refuses or cannot be reached at the start.
pub fn run(_: &Arguments, client: &Client) -> Result<Exit, Failure> {
    if !io::stdout().is_terminal() {
        let message = "standard output is not a terminal: use `palang monitor` \
                       and `palang status` instead";
        return Err(Failure::new(Exit::Usage, message));
    }
    let news = listen(client.clone());
    let first = match news.recv() {
        Ok(News::Top(top)) => top,
        Ok(News::Gone(error)) => return Err(error.into()),
        Err(error) => return Err(Failure::new(Exit::Failed, error)),
    };
    // Held until the end of this function or process.
    let (_statistics, measuring) = match Statistics::enable() {
        Ok(statistics) => (Some(statistics), Measuring::On),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            (None, Measuring::Off("needs root: sudo palang top".to_owned()))
        }
        Err(error) => (None, Measuring::Off(format!("the kernel cannot measure it: {error}"))),
    };
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut view = View::new(measuring, !is_plain, jiff::tz::TimeZone::system());
    view.hear(*first);
    let failed = |error| Failure::new(Exit::Failed, format!("the terminal: {error}"));
    let ended = ended_by_signal().map_err(failed)?;
    // From here on, a panic also restores the terminal.
    let shown =
        ratatui::try_init().and_then(|mut terminal| show(&mut terminal, &mut view, &news, &ended));
    let restored = ratatui::try_restore();
    shown.and(restored).map_err(failed)?;
    Ok(Exit::Done)
}

/// Returns a flag that becomes true when a signal ends this process or the terminal goes away. The
/// library would read forever from a terminal that is gone, while the kernel continues to measure.
/// Therefore the process exits 1 s after the signal at the latest.
fn ended_by_signal() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let flag = Arc::clone(&ended);
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            flag.store(true, Ordering::Relaxed);
            std::thread::sleep(GRACE);
            let _ = ratatui::try_restore();
            std::process::exit(Exit::Done as i32);
        }
    });
    Ok(ended)
}

/// Requests news from the daemon on a separate thread, and again if the daemon is gone.
fn listen(client: Client) -> Receiver<News> {
    let (sender, news) = channel();
    std::thread::spawn(move || while forward(&client, &sender).is_ok() {});
    news
}

/// Forwards news until the daemon is gone; an error means that the receiver is gone.
fn forward(client: &Client, sender: &Sender<News>) -> Result<(), ()> {
    let path = client::path(&["top"], &[]);
    let ended = client.watch(&path, |top: Box<Top>| match sender.send(News::Top(top)) {
        Ok(()) => std::ops::ControlFlow::Continue(()),
        Err(_) => std::ops::ControlFlow::Break(()),
    });
    let hung_up = || client::Error::Silent("the daemon closed the connection".to_owned());
    sender.send(News::Gone(ended.err().unwrap_or_else(hung_up))).map_err(|_| ())?;
    std::thread::sleep(AGAIN);
    Ok(())
}

fn show(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    news: &Receiver<News>,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut heard = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        loop {
            match news.try_recv() {
                Ok(News::Top(top)) => {
                    heard = Instant::now();
                    view.hear(*top);
                }
                Ok(News::Gone(error)) => view.connection = Connection::Gone(error.to_string()),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    return Err(io::Error::other("the thread that asks the daemon has ended"));
                }
            }
        }
        if heard.elapsed() > SILENCE && matches!(view.connection, Connection::Up) {
            view.connection = Connection::Silent;
        }
        view.silent_for = heard.elapsed().as_secs();
        terminal.draw(|frame| draw::draw(view, frame))?;
        if event::poll(LOOK)?
            && let Event::Key(key) = event::read()?
            && is_end(key)
        {
            return Ok(());
        }
    }
    Ok(())
}

fn is_end(key: KeyEvent) -> bool {
    let is_control_c =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_q = key.code == KeyCode::Char('q') || key.code == KeyCode::Esc;
    key.kind == KeyEventKind::Press && (is_q || is_control_c)
}
