//! Kamailio as the carrier in front of the gate.

use std::process::Child;

use super::super::{GATE, Lab, TRUNK};
use super::Files;

/// How the carrier learns that the centre is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// `dispatcher` marks a peer that lets an INVITE time out, until an OPTIONS is answered.
    Dispatcher,
    /// The core remembers for 60 s that an address did not answer (`use_dst_blocklist`).
    Blocklist,
}

/// Kamailio; dropped, it ends.
pub struct Kamailio {
    child: Child,
    files: Files,
}

impl Kamailio {
    /// Starts it at port 5060 of the trunk. It waits 4 s for a response.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(lab: &Lab, files: Files, dead: Dead) -> Kamailio {
        let peers = files.write("dispatcher.list", &format!("1 sip:{GATE}:5060\n"));
        let (core, modules, select, failed) = match dead {
            Dead::Dispatcher => (
                "",
                format!(
                    r#"loadmodule "dispatcher.so"
modparam("dispatcher", "list_file", "{}")
modparam("dispatcher", "flags", 2)
modparam("dispatcher", "ds_ping_interval", 10)
modparam("dispatcher", "ds_probing_mode", 0)
modparam("dispatcher", "ds_ping_from", "sip:carrier@{TRUNK}")"#,
                    peers.display()
                ),
                r#"if (!ds_select_dst("1", "4")) {
        sl_send_reply("503", "No centre");
        exit;
    }"#
                .to_owned(),
                r#"if (t_branch_timeout() && !t_branch_replied()) {
        ds_mark_dst("ip");
    }"#,
            ),
            Dead::Blocklist => (
                "use_dst_blocklist=on",
                String::new(),
                format!("$du = \"sip:{GATE}:5060\";"),
                "return;",
            ),
        };
        let config = format!(
            r#"#!KAMAILIO
listen=udp:127.0.0.1:5060
listen=udp:{TRUNK}:5060
mhomed=1
disable_tcp=yes
children=4
log_stderror=yes
debug=0
{core}
loadmodule "pv.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "rr.so"
# 30 s as delivered; the test would wait that long for each prank that is dropped.
modparam("tm", "fr_timer", 4000)
{modules}
request_route {{
    if (is_method("ACK")) {{
        if (t_check_trans()) {{ t_relay(); }}
        exit;
    }}
    if (!is_method("INVITE")) {{ exit; }}
    {select}
    t_on_failure("FAILED");
    t_relay();
}}
failure_route[FAILED] {{
    {failed}
}}
"#
        );
        let file = files.write("kamailio.cfg", &config).display().to_string();
        let folder = files.inside().display().to_string();
        let arguments = ["-DD", "-E", "-m", "16", "-M", "4", "-f", &file, "-Y", &folder];
        let child = files.start(lab, "kamailio", &arguments);
        Kamailio { child, files }
    }

    /// Returns what it said.
    #[must_use]
    pub fn log(&self) -> String {
        self.files.read("log")
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // Its main process; the lab ends the others.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
