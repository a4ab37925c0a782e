//! The tests of redirections, by trunk. A trunk answers with 302 only after its test was passed.

use crate::api::wire::RedirectTested;
use crate::config::Config;
use crate::store::{Entry, Error, Reader, Store};

fn key(trunk: &str) -> String {
    format!("redirect {trunk}")
}

impl Store {
    /// Stores the result of a test, in place of the one before.
    ///
    /// # Errors
    /// Returns an error if the disk refuses; nothing was stored.
    pub fn set_redirect_tested(
        &mut self,
        tested: &RedirectTested,
        entry: Entry,
    ) -> Result<(), Error> {
        self.set_state(&key(&tested.trunk), tested, Some(entry))
    }
}

impl Reader {
    /// Returns the result of the last test of a trunk.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn redirect_tested(&self, trunk: &str) -> Result<Option<RedirectTested>, Error> {
        self.state(&key(trunk))
    }

    /// Returns the trunks of a configuration that would answer with 302 without a passed test of their contact, and why not.
    ///
    /// # Errors
    /// Returns an error if the store cannot be read.
    pub fn untested_redirects(&self, config: &Config) -> Result<Vec<(String, String)>, Error> {
        let mut untested = Vec::new();
        for trunk in config.redirecting() {
            let (name, contact) = (&trunk.name, trunk.profile.contact.uri());
            let why = match self.redirect_tested(name)? {
                Some(tested) if tested.contact != contact => {
                    format!("another contact was tested, {}", tested.contact)
                }
                Some(tested) if tested.sources != trunk.source_texts() => {
                    "it was tested with other sources".to_owned()
                }
                Some(tested) if tested.passed => continue,
                Some(tested) => format!("the test of {} failed: {}", tested.time, tested.why),
                None => "it was not tested".to_owned(),
            };
            untested.push((name.clone(), why));
        }
        Ok(untested)
    }
}
