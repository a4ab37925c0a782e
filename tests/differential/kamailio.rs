//! Kamailio as a SIP stack: it gets messages over UDP on loopback, and logs what it reads.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::stack::{Read, Stack, text};

/// Begins a line of the log with `From` and `To` of a message.
const READ: &str = "palang-read ";
/// Begins a line of the log after each message.
const DONE: &str = "palang-done";
/// The request that makes that line.
const END: &str = "INFO sip:palang-done@a SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: <sip:a@a>;tag=1\r\n\
    To: <sip:a@a>\r\nCall-ID: end\r\nCSeq: 1 INFO\r\n\r\n";

/// Kamailio with one worker: it reads messages in their order.
pub struct Kamailio {
    process: Child,
    log: BufReader<ChildStderr>,
    socket: UdpSocket,
}

impl Kamailio {
    pub fn start(folder: &Path) -> Kamailio {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let config = folder.join("kamailio.cfg");
        let text = format!(
            r#"#!KAMAILIO
listen=udp:{address}
disable_tcp=yes
children=1
log_stderror=yes
debug=-1
auto_aliases=no
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "textops.so"
request_route {{
    if (is_method("INFO")) {{
        xlog("L_ALERT", "$rU\n");
        exit;
    }}
    if (!is_method("INVITE") || $fU == $null) {{ exit; }}
    $var(tag) = "";
    if ($tt != $null) {{ $var(tag) = $tt; }}
    xlog("L_ALERT", "{READ}$(fu{{s.encode.hexa}}) $(fU{{s.encode.hexa}}) $(var(tag){{s.encode.hexa}}).\n");
    exit;
}}
"#
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "16", "-M", "8", "-f"]).arg(&config).arg("-Y").arg(folder);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        let mut kamailio = Kamailio { process, log, socket };
        kamailio.wait();
        kamailio
    }

    /// Waits until it reads messages: what comes before it listens is lost.
    fn wait(&mut self) {
        let socket = self.socket.try_clone().unwrap();
        let is_ready = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_ready.load(Ordering::Relaxed) {
                    let _ = socket.send(END.as_bytes());
                    thread::sleep(Duration::from_millis(100));
                }
            });
            assert_eq!(self.until_done(), None);
            is_ready.store(true, Ordering::Relaxed);
        });
        // Those that came besides; a line of a later message ends them.
        self.send(END.replace(DONE, "palang-begin").as_bytes());
        while !self.line().contains("palang-begin") {}
    }

    fn send(&self, message: &[u8]) {
        self.socket.send(message).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let len = self.log.read_until(b'\n', &mut line).unwrap();
        assert_ne!(len, 0, "Kamailio has ended");
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Returns the rest of the line about the message that was sent before [`END`].
    fn until_done(&mut self) -> Option<String> {
        let mut read = None;
        loop {
            let line = self.line();
            if line.contains(DONE) {
                return read;
            }
            if let Some((_, rest)) = line.split_once(READ) {
                read = Some(rest.trim_end().trim_end_matches('.').to_owned());
            }
        }
    }
}

impl Stack for Kamailio {
    fn read(&mut self, message: &[u8]) -> Option<Read> {
        self.send(message);
        self.send(END.as_bytes());
        let read = self.until_done()?;
        let texts: Vec<_> = read.split(' ').collect();
        let [uri, user, tag] = texts[..] else { panic!("three texts: {read}") };
        let (uri, user) = (text(uri), text(user));
        let (scheme, rest) = uri.split_once(':')?;
        // Its user is without parameters such as `phone-context`, which are a part of the number.
        let whole = rest.rsplit_once('@').map_or(rest, |(whole, _)| whole);
        let user = if whole.starts_with(&user) { whole.to_owned() } else { user };
        Some(Read { scheme: scheme.to_owned(), user, tag: text(tag) })
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // SIGTERM: it ends its other processes.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}
