//! The plan that a command is about: of a trunk, of the configuration, or of a country.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::input::country::preset;
use crate::cli::input::trunk;
use crate::config::{Config, limits};
use crate::exit::{Exit, Failure};
use crate::model::policy::Trunk;

/// The plan that a command is about.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Plan of this trunk of the configuration [default: the profile `default`]
    #[arg(long, value_name = "NAME", conflicts_with = "country")]
    trunk: Option<String>,
    /// Preset of this country, two letters of ISO 3166, instead of the configuration
    #[arg(long, value_name = "CC")]
    country: Option<String>,
    /// Configuration file
    #[arg(long, env = "PALANG_CONFIG", value_name = "FILE", default_value = limits::PATH)]
    config: PathBuf,
}

impl Which {
    /// Returns the trunk that was named, or one with the preset of the country; `None` without a name.
    fn named(&self) -> Result<Option<Trunk>, Failure> {
        if let Some(country) = &self.country {
            return preset(country).map(Some);
        }
        let Some(name) = &self.trunk else {
            return Ok(None);
        };
        let mut policy = read(&self.config)?.policy;
        let index = trunk::find(&policy, name)?;
        Ok(Some(policy.trunks.swap_remove(index)))
    }

    /// Returns the trunk that was named; without a name the profile `default`.
    pub(crate) fn one(&self) -> Result<Trunk, Failure> {
        match self.named()? {
            Some(trunk) => Ok(trunk),
            None => Ok(read(&self.config)?.policy.trunks.swap_remove(0)),
        }
    }

    /// Returns the trunk that was named; without a name all trunks.
    pub(crate) fn all(&self) -> Result<Vec<Trunk>, Failure> {
        match self.named()? {
            Some(trunk) => Ok(vec![trunk]),
            None => Ok(read(&self.config)?.policy.trunks),
        }
    }
}

/// Reads the configuration.
pub(crate) fn read(path: &Path) -> Result<Config, Failure> {
    Config::read(path).map_err(|error| {
        let advice =
            if path.exists() { "" } else { "; --country ID takes the preset of a country" };
        Failure::new(Exit::Usage, format!("{error}{advice}"))
    })
}
