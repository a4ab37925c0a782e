//! INVITEs as fast as one thread sends them. Not each is followed: the gate counts how many it judges.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::address::GATE;
use super::message;
use super::namespace::Namespace;
use super::network::Lab;

/// The beginning of the numbers of many callers; eight digits follow.
pub const MANY: &str = "+62812";

/// The callers of the INVITEs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// All of one caller.
    One(&'static str),
    /// Of a number of callers in turn, at most 100,000,000: [`MANY`] and eight digits.
    Many(u32),
}

/// A flood that runs; each INVITE is a call of its own. Dropped, it ends.
pub struct Flood<'a> {
    lab: &'a Lab,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
    lost_before: u64,
}

impl Lab {
    /// INVITEs to port 5060 of the gate, as fast as one thread sends them.
    ///
    /// # Panics
    /// When the kernel gives no socket.
    #[must_use]
    pub fn flood(&self, callers: Callers) -> Flood<'_> {
        Flood::start(self, &self.trunk, callers)
    }
}

impl<'a> Flood<'a> {
    fn start(lab: &'a Lab, trunk: &Namespace, callers: Callers) -> Flood<'a> {
        let socket = trunk.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let socket = socket.expect("a UDP socket in the trunk's namespace");
        socket.connect((GATE, 5060)).expect("an address of the gate");
        let stop = Arc::new(AtomicBool::new(false));
        let lost_before = lab.lost_by_veth();
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || send(&socket, callers, &stop)
        });
        Flood { lab, stop, thread: Some(thread), lost_before }
    }

    /// Ends it. Returns how many INVITEs it sent that the veth pair did not lose.
    ///
    /// # Panics
    /// When the sender did.
    #[must_use]
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("taken only here");
        let sent = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        sent - (self.lab.lost_by_veth() - self.lost_before)
    }
}

impl Drop for Flood<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sends until `stop` is set; returns how many INVITEs.
fn send(socket: &UdpSocket, callers: Callers, stop: &AtomicBool) -> u64 {
    const CALL: &str = "----------------@flood";
    const DIGITS: &str = "########";
    let caller = match callers {
        Callers::One(caller) => caller.to_owned(),
        Callers::Many(_) => format!("{MANY}{DIGITS}"),
    };
    let text = message::invite(&caller, CALL);
    let call_at = text.find("Call-ID: ").expect("a Call-ID") + "Call-ID: ".len();
    let digits_at = text.find(DIGITS);
    let mut message = text.into_bytes();
    let mut sent = 0u64;
    while !stop.load(Ordering::Relaxed) {
        message[call_at..call_at + 16].copy_from_slice(format!("{sent:016x}").as_bytes());
        if let (Callers::Many(count), Some(at)) = (callers, digits_at) {
            let number = sent % u64::from(count);
            message[at..at + 8].copy_from_slice(format!("{number:08}").as_bytes());
        }
        // The pair's queue is full at times.
        if socket.send(&message).is_ok() {
            sent += 1;
        }
    }
    sent
}
