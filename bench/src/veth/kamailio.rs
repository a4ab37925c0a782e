//! A real Kamailio on the gate, with the list of blocked numbers in its own memory.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use palang_tests::lab::{GATE, Lab};
use tempfile::TempDir;

use super::invites::{BLOCKED, FIRST, PREFIX};
use super::{RECEIVER_CPU, cpu, must};

/// Drops blocked callers without an answer and answers others 404. It ends when dropped.
pub struct Kamailio<'a> {
    lab: &'a Lab,
    folder: TempDir,
    child: Child,
}

impl<'a> Kamailio<'a> {
    /// Starts it with one worker on the receiving CPU.
    pub fn start(lab: &'a Lab) -> Result<Kamailio<'a>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("kamailio.cfg");
        let after = FIRST + BLOCKED;
        let config = format!(
            r#"#!KAMAILIO
log_stderror=yes
debug=1
children=1
disable_tcp=yes
auto_aliases=no
dns=no
rev_dns=no
max_while_loops={after}
listen=udp:{GATE}:5060
loadmodule "pv.so"
loadmodule "sl.so"
loadmodule "htable.so"
modparam("htable", "htable", "b=>size=13;")
event_route[htable:mod-init] {{
    $var(i) = {FIRST};
    while ($var(i) < {after}) {{
        $var(k) = "+{PREFIX}" + $var(i);
        $sht(b=>$var(k)) = 1;
        $var(i) = $var(i) + 1;
    }}
}}
request_route {{
    if ($sht(b=>$fU) != $null) {{
        drop;
    }}
    sl_send_reply("404", "Not Found");
}}
"#
        );
        fs::write(&file, config)?;
        let stderr = File::create(folder.path().join("stderr"))?;
        let mut command = lab.command_in_gate("kamailio");
        command.args(["-DD", "-E", "-m", "64", "-M", "8", "-f"]).arg(&file);
        command.arg("-Y").arg(folder.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn()?;
        let mut kamailio = Kamailio { lab, folder, child };
        kamailio.wait_until_it_listens()?;
        for pid in kamailio.pids() {
            cpu::pin(pid, RECEIVER_CPU)?;
        }
        Ok(kamailio)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut sockets = self.lab.command_in_gate("ss");
            // Workers start after the socket exists: until then nothing reads it.
            if must(sockets.args(["-lunH", "sport", "=", ":5060"]))?.contains(":5060")
                && self.pids().len() > 2
            {
                std::thread::sleep(Duration::from_millis(300));
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(self.folder.path().join("stderr"));
                bail!("kamailio does not listen: {}", said.context("its stderr")?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns all its processes.
    pub fn pids(&self) -> Vec<u32> {
        cpu::family(self.child.id())
    }
}

impl Drop for Kamailio<'_> {
    fn drop(&mut self) {
        // It has ended by itself, so its process ID may be reused. The lab ends what is left.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // The workers do not end with their parent.
        for pid in self.pids().into_iter().rev() {
            if let Ok(pid) = i32::try_from(pid) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let _ = self.child.wait();
    }
}
