//! The settings that a block has of its own, as texts of a file.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::redial::RedialPolicy;

/// The redial setting of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnRedial {
    /// As configured.
    #[default]
    AsConfigured,
    /// The caller is never let through.
    Off,
    /// The caller is let through by this rule.
    Own(RedialPolicy),
}

impl Serialize for OwnRedial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            OwnRedial::AsConfigured => serializer.serialize_str(""),
            OwnRedial::Off => serializer.serialize_str("off"),
            OwnRedial::Own(redial) => serializer.collect_str(redial),
        }
    }
}

impl<'de> Deserialize<'de> for OwnRedial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OwnRedial, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        match text.trim() {
            "" => Ok(OwnRedial::AsConfigured),
            "off" => Ok(OwnRedial::Off),
            text => text.parse().map(OwnRedial::Own).map_err(serde::de::Error::custom),
        }
    }
}

/// Reads and writes the refusal of a block.
pub(super) mod refuse_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::refuse::Refuse;

    #[expect(clippy::ref_option, reason = "serde hands out a reference")]
    pub fn serialize<S: Serializer>(
        refuse: &Option<Refuse>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&refuse.map(Refuse::name).unwrap_or_default())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Refuse>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        let refuse = match text.trim() {
            "" => return Ok(None),
            text => Refuse::parse(text),
        };
        refuse.map(Some).map_err(|error| serde::de::Error::custom(format!("refuse: {error}")))
    }
}
