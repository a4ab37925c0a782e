//! The daemon on an interface of its own: two network namespaces, real UDP, nothing else touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell;

const GATE: &str = "palang-demo-gate";
const TRUNK: &str = "palang-demo-trunk";
const PINS: &str = "/sys/fs/bpf/palang-demo";
const CALLER: &str = "0812-3456-7890";

/// The commands to show, as typed after `palang`.
const COMMANDS: &[&[&str]] =
    &[&["status"], &["block", "add", CALLER, "--for", "24h", "--reason", "prank, case 118"]];
const REFUSING: &[&[&str]] = &[&["mode", "enforce", "--for", "1h"], &["check", CALLER]];
const AFTER: &[&[&str]] = &[
    &["calls"],
    &["override", "on", "--for", "30m", "--reason", "the tower burns"],
    &["explain", CALLER],
    &["audit", "list"],
];

/// Shows a block, from observe to override.
pub fn show(palang: &Path) -> Result<()> {
    let folder = shell::target_dir()?.join("demo");
    let mut stage = Stage::build(palang, &folder)?;
    stage.start()?;
    stage.all(COMMANDS)?;
    stage.call("first@demo")?;
    stage.all(REFUSING)?;
    stage.call("second@demo")?;
    sleep(Duration::from_secs(2)); // call records are committed once a second
    stage.all(AFTER)
}

/// The namespaces, the configuration, and the daemon in them. Dropped, all is gone.
struct Stage<'a> {
    palang: &'a Path,
    folder: PathBuf,
    daemon: Option<Child>,
}

impl<'a> Stage<'a> {
    fn build(palang: &'a Path, folder: &Path) -> Result<Stage<'a>> {
        let stage = Stage { palang, folder: folder.to_owned(), daemon: None };
        stage.tear_down();
        fs::create_dir_all(folder)?;
        let (state, run) = (folder.join("state"), folder.join("run"));
        let config = format!(
            "interfaces = [\"gate0\"]\n[limits]\nblocks = 10000\n[paths]\nstate = {state:?}\n\
             runtime = {run:?}\npins = \"{PINS}\"\n"
        );
        fs::write(folder.join("palang.toml"), config)?;
        for command in [
            format!("netns add {GATE}"),
            format!("netns add {TRUNK}"),
            format!("link add gate0 netns {GATE} type veth peer name trunk0 netns {TRUNK}"),
            format!("-n {GATE} address add 192.0.2.1/24 dev gate0"),
            format!("-n {TRUNK} address add 192.0.2.2/24 dev trunk0"),
            format!("-n {GATE} link set gate0 up"),
            format!("-n {TRUNK} link set trunk0 up"),
        ] {
            shell::run(Command::new("ip").args(command.split(' ')))?;
        }
        Ok(stage)
    }

    fn tear_down(&self) {
        for namespace in [GATE, TRUNK] {
            let _ =
                Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
        }
        let _ = fs::remove_dir_all(PINS);
        let _ = fs::remove_dir_all(&self.folder);
    }

    fn start(&mut self) -> Result<()> {
        let config = self.folder.join("palang.toml");
        eprintln!("$ palang daemon --config {}", config.display());
        let mut daemon = within(GATE, self.palang);
        daemon.args(["daemon", "--config"]).arg(config);
        self.daemon = Some(daemon.spawn().context("cannot start the daemon")?);
        let begun = Instant::now();
        while !self.folder.join("run/palang.sock").exists() {
            if begun.elapsed() > Duration::from_secs(20) {
                bail!("the daemon does not come up");
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn all(&self, commands: &[&[&str]]) -> Result<()> {
        for arguments in commands {
            eprintln!("\n$ palang {}", quoted(arguments));
            let status = within(GATE, self.palang)
                .args(*arguments)
                .env("PALANG_SOCKET", self.folder.join("run/palang.sock"))
                .status()?;
            // `check` says 10 for a number that is refused.
            if !matches!(status.code(), Some(0 | 10)) {
                bail!("it failed");
            }
        }
        Ok(())
    }

    /// Sends an INVITE of the caller with bash, which knows UDP.
    fn call(&self, call_id: &str) -> Result<()> {
        let invite = format!(
            "INVITE sip:112@psap.example SIP/2.0\r\nFrom: <sip:+6281234567890@x>;tag=1\r\n\
             To: <sip:112@psap.example>\r\nCall-ID: {call_id}\r\nCSeq: 1 INVITE\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let file = self.folder.join("invite");
        fs::write(&file, invite)?;
        let mut send = within(TRUNK, Path::new("bash"));
        // One write is one datagram.
        send.args(["-c", "cat \"$0\" > /dev/udp/192.0.2.1/5060"]).arg(&file);
        shell::run_as("(an INVITE of +6281234567890 comes in)", &mut send)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        self.tear_down();
    }
}

/// Returns a command that runs a program in a namespace, with our own `/sys`, where the BPF file
/// system is.
fn within(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).arg(program);
    command
}

fn quoted(arguments: &[&str]) -> String {
    let quote = |argument: &&str| {
        if argument.contains(' ') { format!("\"{argument}\"") } else { (*argument).to_owned() }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}
