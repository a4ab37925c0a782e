//! Trunks as the options of `palang setup` name them.

use ipnet::IpNet;

use crate::bringup::setup::{Sends, WantedTrunk};
use crate::cli::input::plan::{format, identity};

/// The trunks, and what the others send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carriers {
    /// The form of callers on every trunk that has no other.
    pub(crate) sends: Sends,
    pub(crate) trunks: Vec<WantedTrunk>,
}

/// Checks an address or a prefix.
///
/// # Errors
/// Returns the mistake.
pub(crate) fn source(text: &str) -> Result<String, String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok() || text.parse::<IpNet>().is_ok();
    is_address
        .then(|| text.to_owned())
        .ok_or_else(|| format!("{text:?} is not an address or prefix, such as 192.0.2.0/24"))
}

/// Parses `name=east,source=192.0.2.0/24,identity=pai,format=national`.
///
/// # Errors
/// Returns the mistake.
pub(crate) fn trunk(text: &str) -> Result<WantedTrunk, String> {
    let mut trunk = WantedTrunk::default();
    for part in text.split(',') {
        match part.split_once('=').unwrap_or((part, "")) {
            (_, "") => return Err(format!("{part:?} has no value: write name=east")),
            ("name", _) if !trunk.name.is_empty() => return Err("name: only one".to_owned()),
            ("identity", _) if trunk.sends.identity.is_some() => {
                return Err("identity: only one".to_owned());
            }
            ("name", value) => value.clone_into(&mut trunk.name),
            ("source", value) => trunk.sources.push(source(value)?),
            ("identity", value) => trunk.sends.identity = Some(identity(value)?),
            ("format", value) => trunk.sends.formats.push(format(value)?),
            (key, _) => {
                return Err(format!("{key:?} is unknown: write name, source, identity or format"));
            }
        }
    }
    if trunk.name.is_empty() || trunk.sources.is_empty() {
        return Err("a trunk needs name=NAME and source=ADDRESS".to_owned());
    }
    Ok(trunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::format::Format;
    use crate::model::plan::identity::Identity;

    #[test]
    fn trunk_is_read_from_its_option() {
        let east =
            trunk("name=east,source=192.0.2.0/24,source=2001:db8::1,identity=pai,format=national");
        let sends = Sends { identity: Some(Identity::Pai), formats: vec![Format::National] };
        let sources = vec!["192.0.2.0/24".into(), "2001:db8::1".into()];
        assert_eq!(east, Ok(WantedTrunk { name: "east".into(), sources, sends }));
        for (text, says) in [
            ("", "has no value"),
            ("east", "has no value"),
            ("name=east", "needs name=NAME and source=ADDRESS"),
            ("source=192.0.2.1", "needs name=NAME"),
            ("name=east,source=192.0.2.300", "not an address"),
            ("name=east,source=192.0.2.1,format=any", "write e164, own-e164"),
            ("name=east,source=192.0.2.1,identity=PAI", "write from, pai, pai-else-from"),
            ("name=east,sources=192.0.2.1", "is unknown"),
        ] {
            let mistake = trunk(text).unwrap_err();
            assert!(mistake.contains(says), "{text}: {mistake}");
        }
    }
}
