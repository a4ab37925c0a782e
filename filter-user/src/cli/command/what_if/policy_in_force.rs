//! Reads the policy in force from the daemon: its configuration, mode, blocks and allows.

use std::ops::ControlFlow;
use std::path::Path;

use filter_common::abi::{BLOCK_NO_REDIAL, BLOCK_OBSERVE, MODE_ENFORCE, MODE_OBSERVE};
use filter_common::plan::Plan;
use jiff::Timestamp;

use crate::api::client;
use crate::api::client::Client;
use crate::api::wire::{Allow, Block, ConfigInForce, Mode};
use crate::config::error::ConfigError;
use crate::config::file;
use crate::exit::Failure;
use crate::model::number_text;
use crate::model::policy::{Policy, Subject};
use crate::model::refuse::Refuse;
use crate::what_if::records::nanoseconds;

/// Why the policy in force is not known.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The daemon masks numbers for this user.
    #[error("the daemon masks the numbers: this needs the role operate ([roles] in palang.toml)")]
    Masked,
    /// The daemon refuses or cannot be reached; its reason in one line.
    #[error("{0}")]
    Daemon(String),
    /// This version does not accept the daemon's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A number is not valid under the numbering plan.
    #[error("{0}")]
    Number(String),
}

/// Returns the policy in force; its times are nanoseconds since 1970. The override is not part of
/// it, as it is only temporary.
///
/// # Errors
/// Returns an error if the daemon refuses, cannot be reached, or masks numbers.
pub fn policy(client: &Client) -> Result<Policy, PolicyError> {
    let reason = |error: client::Error| {
        let message = Failure::from(error).message;
        PolicyError::Daemon(message.lines().next().unwrap_or_default().to_owned())
    };
    let config: ConfigInForce =
        client.get(&client::path(&["config"], &[]), client::SHORT).map_err(reason)?;
    if config.masked {
        return Err(PolicyError::Masked);
    }
    let config = file::parse(&config.text)
        .map_err(|mistake| mistake.in_file(Path::new(&config.path), &config.text))?;
    let mut policy = config.policy;
    let mode: Mode = client.get(&client::path(&["mode"], &[]), client::SHORT).map_err(reason)?;
    policy.settings.mode = if mode.mode == "enforce" { MODE_ENFORCE } else { MODE_OBSERVE };
    let plan = policy.trunks[0].profile.plan;
    let (mut wrong, mut unknown) = (None, None);
    let mut found = |text: &str, put: &mut dyn FnMut(Subject)| {
        match subject(text, &plan) {
            Ok(subject) => put(subject),
            Err(error) => wrong = Some(error),
        }
        if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    client
        .list(&client::path(&["allows"], &[]), |allow: Allow| {
            let expires = end(allow.expires);
            found(&allow.number, &mut |subject| policy.allow(subject, expires))
        })
        .map_err(reason)?;
    client
        .list(&client::path(&["blocks"], &[]), |block: Block| {
            let refuse = match block.refuse.as_deref().map(Refuse::named).transpose() {
                Ok(refuse) => refuse.map_or(0, Refuse::flags),
                Err(error) => {
                    unknown = Some(format!("block {}: refuse: {error}", block.number));
                    return ControlFlow::Break(());
                }
            };
            let flags = if block.observe { BLOCK_OBSERVE } else { 0 }
                | if block.no_redial { BLOCK_NO_REDIAL } else { 0 }
                | refuse;
            let expires = end(block.expires);
            let redial = block.redial.unwrap_or(config.redial);
            found(&block.number, &mut |subject| {
                policy.block(subject, expires, flags);
                if let Some((_, block)) = policy.blocks.last_mut() {
                    redial.put(block);
                }
            })
        })
        .map_err(reason)?;
    match unknown.map(PolicyError::Daemon).or(wrong) {
        Some(error) => Err(error),
        None => Ok(policy),
    }
}

/// Converts an end to nanoseconds as the gate reads it: 0 is never.
fn end(expires: Option<Timestamp>) -> u64 {
    expires.map_or(0, nanoseconds)
}

/// Checks whether the middle of a number is hidden, as for the role read.
pub fn is_masked(text: &str) -> bool {
    text.strip_suffix('*').unwrap_or(text).contains('*')
}

/// Parses a number of the API: E.164 digits without `+`, a local number, or a prefix with `*`.
///
/// # Errors
/// `Masked`; `Number` if the number is not valid.
pub fn subject(text: &str, plan: &Plan) -> Result<Subject, PolicyError> {
    if is_masked(text) {
        return Err(PolicyError::Masked);
    }
    let is_local = !text.ends_with('*') && text.len() <= usize::from(plan.short_digits);
    let text = if is_local { text.to_owned() } else { format!("+{text}") };
    number_text::subject(&text, plan).map_err(|error| PolicyError::Number(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_number_text_parses_to_the_same_subject() {
        let plan = Policy::default().trunks[0].profile.plan;
        for text in ["6281234567890", "14155550100", "2502", "112", "62811", "62811*", "1*"] {
            assert_eq!(subject(text, &plan).unwrap().to_string(), text);
        }
        for masked in ["6281*******90", "1**", "6*****"] {
            assert!(
                subject(masked, &plan).unwrap_err().to_string().contains("role operate"),
                "{masked}"
            );
        }
        assert!(matches!(subject("2502", &plan), Ok(Subject::Number(number)) if number.is_local()));
    }
}
