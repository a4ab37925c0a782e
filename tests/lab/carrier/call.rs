//! Calls through the carrier, from beside it.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::Lab;

/// Honest calls of [`calls_beside_pranks`], and their distance.
const HONEST: usize = 40;
const PAUSE: Duration = Duration::from_millis(500);
/// Pranks, and the pause after each.
const PRANKS: usize = 4;
const PRANK_PAUSE: Duration = Duration::from_secs(4);

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The status code of the final response; 0: none came.
    pub status: u16,
    /// How long it took.
    pub took: Duration,
}

/// The ends of calls of honest callers and pranksters.
#[derive(Debug)]
pub struct Outcome {
    /// How many of 40 honest calls were answered.
    pub answered: usize,
    /// The four pranks.
    pub pranks: Vec<Call>,
}

/// Makes 40 calls of a caller, 0.5 s apart, and beside them four of a blocked one.
///
/// # Panics
/// When there is no socket.
#[must_use]
pub fn calls_beside_pranks(lab: &Lab, free: &str, blocked: &str) -> Outcome {
    let longest = Duration::from_secs(40);
    std::thread::scope(|scope| {
        let pranks = scope.spawn(|| {
            let prank = |_| {
                let call = Call::make(lab, blocked, longest);
                std::thread::sleep(PRANK_PAUSE);
                call
            };
            (0..PRANKS).map(prank).collect()
        });
        let mut answered = 0;
        for _ in 0..HONEST {
            answered += usize::from(Call::make(lab, free, longest).status == 200);
            std::thread::sleep(PAUSE);
        }
        Outcome { answered, pranks: pranks.join().expect("the pranks") }
    })
}

impl Call {
    /// Makes a call to 112 through the carrier at port 5060 of 127.0.0.1.
    ///
    /// # Panics
    /// When there is no socket.
    #[must_use]
    pub fn make(lab: &Lab, caller: &str, longest: Duration) -> Call {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let call = NEXT.fetch_add(1, Ordering::Relaxed);
        let socket = lab.in_trunk(|| UdpSocket::bind(("127.0.0.1", 0))).expect("a socket");
        let port = socket.local_addr().expect("its address").port();
        let request = |method: &str, to: &str, body: &str| {
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            format!(
                "{method} sip:112@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{call}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:{caller}@127.0.0.1>;tag=1\r\nTo: {to}\r\nCall-ID: {call}@carrier\r\n\
                 CSeq: 1 {method}\r\nContact: <sip:127.0.0.1:{port}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        socket.set_read_timeout(Some(longest)).expect("SO_RCVTIMEO");
        let begun = Instant::now();
        let send = |text: &str| socket.send_to(text.as_bytes(), "127.0.0.1:5060").expect("sent");
        send(&request("INVITE", "<sip:112@127.0.0.1>", &session("127.0.0.1")));
        let mut room = [0; 4096];
        loop {
            let Ok(len) = socket.recv(&mut room) else {
                return Call { status: 0, took: begun.elapsed() };
            };
            let reply = String::from_utf8_lossy(&room[..len]);
            // A request, of a carrier that ends the call.
            let Some(status) = reply.strip_prefix("SIP/2.0 ") else { continue };
            let status = status[..3].parse().expect("a status code");
            if status < 200 {
                continue;
            }
            let to = reply.lines().find_map(|line| line.strip_prefix("To: ")).expect("a To");
            send(&request("ACK", to, ""));
            return Call { status, took: begun.elapsed() };
        }
    }
}

/// Returns the description of a session with one audio stream.
pub(super) fn session(address: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n\
         a=rtpmap:0 PCMU/8000\r\n"
    )
}
