//! The answer of `palang setup`: the state after it, and the next commands.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::output::plan_check::Checked;
use crate::cli::output::{self, Answer, known};

/// The state after setup.
#[derive(Serialize)]
pub(crate) struct Summary {
    pub(crate) interface: String,
    /// `None`: not attached yet.
    pub(crate) xdp: Option<String>,
    /// `None`: no daemon was asked.
    pub(crate) mode: Option<String>,
    pub(crate) config: String,
    pub(crate) ports: Vec<u16>,
    pub(crate) country_code: String,
    /// Country of the preset; `None`: single settings.
    pub(crate) country: Option<&'static str>,
    pub(crate) trunks: Vec<String>,
    /// How well the plans fit the captures; `None` without one.
    pub(crate) checked: Option<Checked>,
    pub(crate) plan: Vec<String>,
    pub(crate) dry_run: bool,
    #[serde(skip)]
    pub(crate) description: Option<String>,
}

impl Answer for Summary {
    fn write_table(&self, writer: &mut dyn Write) -> io::Result<()> {
        let name = &self.interface;
        if self.dry_run {
            return writeln!(writer, "dry run, nothing was changed");
        }
        if let (Some(text), Some(mode)) = (&self.description, &self.mode) {
            writeln!(writer, "in force: {}, mode {}", output::clean(text), output::clean(mode))?;
        }
        writeln!(
            writer,
            "\nnext:\n  \
             palang status            state of the gate\n  \
             palang selftest          test calls through the filter\n  \
             palang monitor           calls as they arrive\n  \
             palang block add NUMBER --for 24h --reason prank\n  \
             palang mode enforce      start refusing blocked callers\n\
             to stop refusing:\n  \
             palang override on --for 1h --reason WHY   no call is refused\n  \
             palang detach {name}     remove the filter; palang attach {name} attaches it again",
        )
    }

    fn raw(&self) -> Vec<Vec<String>> {
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        vec![vec![
            self.interface.clone(),
            known(self.xdp.as_ref()),
            known(self.mode.as_ref()),
            self.config.clone(),
            ports.join(","),
            self.country_code.clone(),
            known(self.country),
            known((!self.trunks.is_empty()).then(|| self.trunks.join(","))),
        ]]
    }
}
