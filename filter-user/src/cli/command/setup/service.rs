//! Starts, stops and reloads the daemon, with systemd or without it.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Pid;

use crate::config::limits;
use crate::exit::{Exit, Failure};

/// The systemd unit of the package; it reads [`limits::PATH`].
pub(crate) const UNIT: &str = "palang.service";

/// Checks that systemd runs this machine, confirms `question` for our unit, and uses this configuration.
pub(crate) fn unit(question: &str, config: &Path) -> bool {
    config == Path::new(limits::PATH)
        && Path::new("/run/systemd/system").is_dir()
        && systemctl(&[question, UNIT]).is_ok()
}

/// Runs systemctl.
///
/// # Errors
/// `Failed` with the last line that systemctl printed.
pub(crate) fn systemctl(arguments: &[&str]) -> Result<(), Failure> {
    let command = format!("systemctl {}", arguments.join(" "));
    match Command::new("systemctl").args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            // The lines before the last name links that systemctl creates.
            let why = said.trim().lines().last().unwrap_or("failed");
            Err(Failure::new(Exit::Failed, format!("{command}: {why}")))
        }
        Err(error) => Err(Failure::new(Exit::Failed, format!("{command}: {error}"))),
    }
}

/// Sends SIGHUP to the process that listens on the socket.
pub(crate) fn hang_up(socket: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("{}: {error}", socket.display()))
    };
    let stream = UnixStream::connect(socket).map_err(|error| failed(&error))?;
    let peer = getsockopt(&stream, PeerCredentials).map_err(|error| failed(&error))?;
    kill(Pid::from_raw(peer.pid()), Signal::SIGHUP).map_err(|error| failed(&error))
}
