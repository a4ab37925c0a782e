//! The control API, asked from this process: a thousand times is quicker so than with the CLI.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use palang::api::client;
use palang::api::client::{Client, Error};
use palang::api::wire::{
    AddAllow, AddBlock, Allow, Attach, AuditRow, Block, Call, Changed, Interface, Mode, Override,
    SetMode, SetOverride, Status,
};
use palang_tests::lab::Daemon;

use crate::gate::with_number;

/// How long something may take that the daemon does by itself within a second.
pub const SOON: Duration = Duration::from_secs(20);

/// A client of a daemon, with the role of root.
pub struct Api(Client);

impl Api {
    /// Returns a client of this daemon's API.
    pub fn of(daemon: &Daemon) -> Api {
        Api(Client::new(&daemon.runtime().join("palang.sock")))
    }

    /// Sets mode enforce.
    pub fn enforce(&self) {
        self.set_mode("enforce");
    }

    /// Sets mode observe.
    pub fn observe(&self) {
        self.set_mode("observe");
    }

    fn set_mode(&self, mode: &str) {
        let set = SetMode { mode: mode.into(), ..SetMode::default() };
        let now: Mode = self.put("mode", &set);
        assert_eq!(now.mode, mode);
    }

    /// Adds a block for this number of seconds.
    pub fn block(&self, number: &str, seconds: u64) -> Changed<Block> {
        let add = AddBlock {
            number: number.into(),
            seconds: Some(seconds),
            reason: "a test".into(),
            ..AddBlock::default()
        };
        self.post("blocks", &add)
    }

    /// Ends a block.
    pub fn unblock(&self, number: &str) -> Changed<Block> {
        self.delete(&["blocks", number])
    }

    /// Adds an allow without end.
    pub fn allow(&self, number: &str) -> Changed<Allow> {
        self.post("allows", &AddAllow { number: number.into(), ..AddAllow::default() })
    }

    /// Ends an allow.
    pub fn disallow(&self, number: &str) -> Changed<Allow> {
        self.delete(&["allows", number])
    }

    /// Sets the override for this number of seconds; 0: off.
    pub fn set_override(&self, seconds: u64) -> Override {
        let reason = if seconds == 0 { String::new() } else { "a test".into() };
        self.put("override", &SetOverride { seconds, reason, dry_run: false })
    }

    pub fn get_override(&self) -> Override {
        self.get("override")
    }

    pub fn status(&self) -> Status {
        self.get("status")
    }

    /// Returns an interface as the status shows it.
    pub fn interface(&self, name: &str) -> Interface {
        let found = self.status().interfaces.into_iter().find(|interface| interface.name == name);
        found.unwrap_or_else(|| panic!("the status does not tell of {name}"))
    }

    pub fn attach(&self, name: &str, mode: Option<&str>) -> Result<Interface, Error> {
        let attach = Attach { mode: mode.map(str::to_owned), dry_run: false };
        self.0.post(&client::path(&["interfaces", name], &[]), &attach, client::LONG)
    }

    pub fn detach(&self, name: &str) -> Interface {
        self.delete(&["interfaces", name])
    }

    /// Returns all blocks of the store.
    pub fn blocks(&self) -> Vec<Block> {
        self.list(&client::path(&["blocks"], &[]))
    }

    /// Returns all records of calls from a number.
    pub fn calls(&self, caller: &str) -> Vec<Call> {
        self.list(&client::path(&["calls"], &[("caller", Some(caller))]))
    }

    /// Returns the audit's records, as JSON, with their numbers.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        let rows: Vec<AuditRow> = self.list(&client::path(&["audit"], &[]));
        let json = |row: AuditRow| {
            let record = serde_json::from_str(&row.record).expect("a record in JSON");
            with_number(record, row.number.as_deref())
        };
        rows.into_iter().map(json).collect()
    }

    fn get<T: serde::de::DeserializeOwned>(&self, what: &str) -> T {
        self.0.get(&client::path(&[what], &[]), client::LONG).expect(what)
    }

    fn put<T: serde::de::DeserializeOwned>(&self, what: &str, new: &impl serde::Serialize) -> T {
        self.0.put(&client::path(&[what], &[]), new, client::LONG).expect(what)
    }

    fn post<T: serde::de::DeserializeOwned>(&self, what: &str, new: &impl serde::Serialize) -> T {
        self.0.post(&client::path(&[what], &[]), new, client::LONG).expect(what)
    }

    fn delete<T: serde::de::DeserializeOwned>(&self, what: &[&str]) -> T {
        self.0.delete(&client::path(what, &[]), client::LONG).expect("deleted")
    }

    fn list<T: serde::de::DeserializeOwned>(&self, path: &str) -> Vec<T> {
        let mut lines = Vec::new();
        let each = |line| {
            lines.push(line);
            ControlFlow::Continue(())
        };
        self.0.list(path, each).expect(path);
        lines
    }
}

/// Asks again and again until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
