//! The SIP server of the centre.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::super::{GATE, Lab};
use super::call::session;

/// Answers each call and each OPTIONS with 200; dropped, it ends.
pub struct Server {
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Starts it at port 5060 of the gate.
    ///
    /// # Panics
    /// When the port is taken.
    #[must_use]
    pub fn start(lab: &Lab) -> Server {
        let socket = lab.in_gate(|| UdpSocket::bind((GATE, 5060))).expect("port 5060");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("SO_RCVTIMEO");
        let stop = Arc::new(AtomicBool::new(false));
        let server = Server { stop: Arc::clone(&stop) };
        std::thread::spawn(move || {
            let mut room = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut room) else { continue };
                let request = String::from_utf8_lossy(&room[..len]);
                if request.starts_with("ACK ") || request.starts_with("SIP/2.0 ") {
                    continue;
                }
                let _ = socket.send_to(reply(&request).as_bytes(), from);
            }
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn reply(request: &str) -> String {
    let wanted = ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Record-Route:"];
    let mut reply = "SIP/2.0 200 OK\r\n".to_owned();
    for line in request.lines() {
        if wanted.iter().any(|name| line.starts_with(name)) {
            let tag = if line.starts_with("To:") { ";tag=centre" } else { "" };
            reply += &format!("{line}{tag}\r\n");
        }
    }
    reply += &format!("Contact: <sip:{GATE}:5060>\r\n");
    let mut body = String::new();
    if request.starts_with("INVITE ") {
        body = session(&GATE.to_string());
        reply += "Content-Type: application/sdp\r\n";
    }
    reply + &format!("Content-Length: {}\r\n\r\n{body}", body.len())
}
