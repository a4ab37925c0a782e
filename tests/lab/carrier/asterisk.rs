//! Asterisk as the exchange in front of the gate.

use std::process::Child;

use super::super::{GATE, Lab, TRUNK};
use super::Files;

/// Asterisk; dropped, it ends.
pub struct Asterisk {
    child: Child,
    files: Files,
}

/// The end of a call through the gate, as the dialplan sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// `DIALSTATUS`: `BUSY`, `CONGESTION`, `CHANUNAVAIL`, `ANSWER` and others.
    pub status: String,
    /// `HANGUPCAUSE`, a cause of Q.850.
    pub cause: u16,
}

impl Asterisk {
    /// Starts it at port 5060 of the trunk and of 127.0.0.1. It asks the centre every 10 s whether it is there.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(lab: &Lab, files: Files) -> Asterisk {
        let folder = files.inside().display().to_string();
        let config = files.write(
            "asterisk.conf",
            &format!(
                "[directories]\nastetcdir => {folder}\nastvarlibdir => {folder}\nastdbdir => {folder}\n\
                 astspooldir => {folder}\nastrundir => {folder}\nastlogdir => {folder}\nastkeydir => {folder}\n\
                 astdatadir => /usr/share/asterisk\n"
            ),
        );
        for (name, text) in [
            ("modules.conf", MODULES.to_owned()),
            ("logger.conf", "[logfiles]\nconsole => notice,warning,error\n".to_owned()),
            ("rtp.conf", "[general]\nrtpstart=20000\nrtpend=20400\n".to_owned()),
            ("pjsip.conf", pjsip()),
            ("extensions.conf", EXTENSIONS.to_owned()),
        ] {
            let _ = files.write(name, &text);
        }
        let config = config.display().to_string();
        let child = files.start(lab, "asterisk", &["-f", "-n", "-C", &config]);
        Asterisk { child, files }
    }

    /// Returns what the dialplan saw of the calls so far, in their order.
    #[must_use]
    pub fn dialled(&self) -> Vec<Dialled> {
        let log = self.files.read("log");
        let ends = log.lines().filter_map(|line| line.split_once("dialled: "));
        ends.filter_map(|(_, text)| {
            let mut words = text.split_whitespace();
            let status = words.next()?.to_owned();
            Some(Dialled { status, cause: words.next()?.parse().ok()? })
        })
        .collect()
    }

    /// Returns what it said.
    #[must_use]
    pub fn log(&self) -> String {
        self.files.read("log")
    }
}

impl Drop for Asterisk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const MODULES: &str = "[modules]\nautoload=yes\n\
    noload = chan_iax2.so\nnoload = chan_unistim.so\nnoload = chan_skinny.so\nnoload = chan_mgcp.so\n\
    noload = res_hep.so\nnoload = res_hep_pjsip.so\nnoload = res_hep_rtcp.so\nnoload = pbx_ael.so\n\
    noload = cdr_radius.so\nnoload = cel_radius.so\nnoload = res_config_ldap.so\nnoload = res_snmp.so\n";

/// As the sample of Asterisk has it: a dialplan goes on to another route when there was neither an answer nor a
/// busy tone.
const EXTENSIONS: &str = "[calls]\nexten => 112,1,Dial(PJSIP/112@centre,35)\n\
    exten => h,1,Log(NOTICE,dialled: ${DIALSTATUS} ${HANGUPCAUSE})\n";

fn pjsip() -> String {
    format!(
        "[global]\ntype=global\n\
         [transport]\ntype=transport\nprotocol=udp\nbind=0.0.0.0:5060\n\
         [centre]\ntype=aor\ncontact=sip:{GATE}:5060\nqualify_frequency=10\n\
         [centre]\ntype=endpoint\ncontext=none\naors=centre\nallow=!all,ulaw\nsend_pai=no\ndirect_media=no\n\
         [callers]\ntype=endpoint\ncontext=calls\nallow=!all,ulaw\ntrust_id_inbound=yes\ndirect_media=no\n\
         [callers]\ntype=identify\nendpoint=callers\nmatch=127.0.0.1\n\
         [own]\ntype=identify\nendpoint=centre\nmatch={GATE}\n; at {TRUNK}\n"
    )
}
