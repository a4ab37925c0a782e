//! The numbering plan of a country that an option names.

use crate::exit::{Exit, Failure};
use crate::model::plan::presets;
use crate::model::policy::{Policy, Trunk};

/// Returns a trunk with the plan of a country.
pub(crate) fn preset(country: &str) -> Result<Trunk, Failure> {
    let Some(preset) = presets::of(country) else {
        let message = format!(
            "--country: {country:?} has no preset: write two letters of ISO 3166, such as ID \
             (`palang plan show --all` lists them)"
        );
        return Err(Failure::new(Exit::Usage, message));
    };
    let mut trunk = Policy::default().trunks.swap_remove(0);
    trunk.name = format!("preset {}", preset.country);
    trunk.profile.plan = preset.plan();
    trunk.country = Some(preset.country);
    Ok(trunk)
}
