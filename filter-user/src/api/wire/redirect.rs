//! The test of a trunk's redirection: does its carrier follow a reply 302?

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/redirects/{name}`: answers one caller of a trunk with 302.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestRedirect {
    /// The number of the telephone that calls.
    pub number: String,
    /// Seconds after which the test ends by itself, at most 1800.
    pub seconds: u64,
}

/// A test that runs: the number has a block, which is answered with 302.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedirectTest {
    /// Name of the trunk.
    pub trunk: String,
    /// The place that the caller is sent to.
    pub contact: String,
    /// The number, as records have it.
    pub number: String,
    /// The id of its block.
    #[schema(value_type = String)]
    pub id: uuid::Uuid,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub begun: Timestamp,
}

/// `PUT /v1/redirects/{name}`: ends a test with its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetRedirect {
    /// The contact that was tested.
    pub contact: String,
    /// Whether the carrier follows it.
    pub passed: bool,
    /// The reason: observations of the gate and of a person.
    pub why: String,
}

/// The result of the last test of a trunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedirectTested {
    /// Name of the trunk.
    pub trunk: String,
    /// The contact that was tested.
    pub contact: String,
    /// The sources of the trunk that was tested.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Whether the carrier follows it.
    pub passed: bool,
    /// The reason: observations of the gate and of a person.
    pub why: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// The user who tested it.
    pub author: String,
}
