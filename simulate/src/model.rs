//! What the simulated centre and its callers are like. Each figure has a source, or is marked as an
//! assumption: something that nobody has measured, or not published.

/// Jakarta Siaga 112, 2024: 637,292 calls in a year.
pub const CALLS_PER_DAY: f64 = 637_292.0 / 366.0;
/// Share of calls that are pranks or silent. 20 to 80 % are reported: 23 % pranks in Jakarta (2024),
/// 48 % in Romania (2019), 56 % in Surabaya (2019), 78 % in Telangana (2020), 81 % in Batman (2024).
pub const NUISANCE: f64 = 0.5;
/// The two ends of that.
pub const NUISANCE_ENDS: [f64; 2] = [0.2, 0.8];
/// Of these, pranks. Purworejo 112, 2022 to July 2024: 1,147 pranks, 1,170 silent calls.
pub const PRANKS_OF_NUISANCE: f64 = 1147.0 / (1147.0 + 1170.0);

/// Pranks of one number in its time, on average. Assumption.
pub const PRANKS_PER_NUMBER: f64 = 10.0;
/// How unequal the numbers are: exponent of a Pareto distribution. Assumption.
pub const PARETO: f64 = 1.2;
/// Most pranks of one number in a year. Romania, first half of 2020: one caller more than 9,500.
pub const PRANKS_MOST: f64 = 9_500.0;
/// Pranks that are meant to follow one another, on average. Assumption.
pub const PRANKS_IN_A_ROW: f64 = 3.0;
/// For how many days a number is used for pranks, on average. Assumption. Blocks and warnings do
/// not make this shorter: Romania's warnings by SMS (2008/09) did not lower the share.
pub const PRANK_DAYS: f64 = 45.0;
/// A prankster who is refused and does not know the rule dials again. Assumption.
pub const PRANKSTER_REDIALS: f64 = 0.4;
/// Share of numbers whose prankster knows the redial rule and uses it. Assumption.
pub const KNOWS_THE_RULE: f64 = 0.05;
/// The same where the rule has got about. Assumption.
pub const KNOWN_WIDELY: f64 = 0.3;

/// Calls in need from one number in a year. Romania 2019: 52 % of 11.3 million calls, of about 19
/// million people; that a prankster's telephone is no different is an assumption.
pub const NEEDS_PER_YEAR: f64 = 0.3;
/// Share of numbers that have another owner within a year (prepaid SIM). Assumption.
pub const CHANGES_HANDS: f64 = 0.2;
/// Share of calls in need after which the same number calls once more within 45 minutes.
/// Assumption.
pub const CALLS_AGAIN: f64 = 0.3;
/// How many people in need dial again 0, 1, 2, 3 and more times when nobody answers. Assumption, and
/// the one that matters most.
pub const REDIALS: [f64; 4] = [0.15, 0.20, 0.25, 0.40];
/// The same of people who give up soon. Assumption.
pub const REDIALS_HASTY: [f64; 4] = [0.35, 0.30, 0.20, 0.15];
/// After the third time, once more, and once more, each with this share. Assumption.
pub const REDIALS_ON: f64 = 0.5;

/// Share of silent calls that come from a telephone in a pocket or with a stuck key, which goes on.
/// Assumption.
pub const SILENT_REPEATED: f64 = 0.3;
/// Calls of such a telephone, on average. Assumption.
pub const SILENT_IN_A_ROW: f64 = 5.0;
/// Share of silent calls of people in need who cannot speak. Assumption.
pub const HIDING: f64 = 0.01;
/// Calls of one who is hiding, on average. Assumption.
pub const HIDING_CALLS: f64 = 3.0;

/// Numbers of innocents who call often: watchmen, care homes, the lonely. Assumption.
pub const FREQUENT_NUMBERS: u32 = 200;
/// Calls of one of them in a day. Assumption.
pub const FREQUENT_PER_DAY: f64 = 0.3;

/// Share of answered pranks that a call-taker reports. Assumption.
pub const PRANKS_REPORTED: f64 = 0.6;
/// Share of answered silent calls that are reported. Assumption.
pub const SILENT_REPORTED: f64 = 0.3;
/// Share of answered real calls that are reported as pranks, by mistake. Assumption.
pub const MISTAKEN: f64 = 0.005;
/// Seconds between a call and its report. Assumption.
pub const REPORT_AFTER: std::ops::Range<f64> = 60.0..300.0;

/// Numbers of innocents that somebody forges in a year. Assumption.
pub const FORGED_PER_YEAR: f64 = 24.0;
/// Share of them on a trunk that is trusted for the number all the same. Assumption.
pub const FORGED_ON_TRUSTED: f64 = 0.2;
/// Pranks with one forged number, and within how many days. Assumption.
pub const FORGED_CALLS: std::ops::RangeInclusive<u32> = 2..=8;
/// Days that these are spread over. Assumption.
pub const FORGED_DAYS: f64 = 3.0;

/// Share of calls that a carrier sends twice, with another Call-ID, within 5 s. Assumption.
pub const SENT_TWICE: f64 = 0.02;
/// Seconds after the first at which an unanswered INVITE is sent again: timers A and B of RFC 3261
/// §17.1.1.2 with T1 = 500 ms.
pub const SENT_AGAIN: [f64; 6] = [0.5, 1.5, 3.5, 7.5, 15.5, 31.5];

/// Seconds that somebody lets it ring who hangs up by himself and dials anew. Assumption.
pub const HANGS_UP: std::ops::Range<f64> = 2.0..8.0;
/// Seconds until a telephone says that nobody is there. At most timer B, 32 s (RFC 3261 §17.1.1.2);
/// the rest is an assumption.
pub const GIVES_UP: std::ops::Range<f64> = 6.0..32.0;
/// Seconds to dial again after that. Assumption.
pub const DIALS: std::ops::Range<f64> = 3.0..10.0;
/// Seconds until somebody dials again who tries something else first. Assumption.
pub const SOMETHING_ELSE: std::ops::Range<f64> = 60.0..480.0;
/// How many hang up, how many wait; the rest tries something else first. Assumption.
pub const HANG_UP_OR_WAIT: [f64; 2] = [0.3, 0.5];
/// Seconds between the attempts of a prankster who knows the rule.
pub const KNOWING: std::ops::Range<f64> = 5.0..6.0;
/// Seconds from a prank or a silent call to the next. Assumption.
pub const NEXT_CALL: std::ops::Range<f64> = 60.0..300.0;
/// Seconds from a call in need to the next of the same person. Assumption.
pub const CALLS_AGAIN_AFTER: std::ops::Range<f64> = 120.0..2_700.0;

/// Seconds of a day.
pub const DAY: f64 = 86_400.0;
/// Days of a year.
pub const YEAR: f64 = 365.0;

/// What differs between simulated centres.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Days that are simulated.
    pub days: u32,
    /// Share of calls that are pranks or silent.
    pub nuisance: f64,
    /// Share of pranksters who know the redial rule.
    pub knowing: f64,
    /// Those dial on until the most attempts that N can be doubled to; else N times, and stop.
    pub dialling_on: bool,
    /// Calls in need in a year from a number that pranks are made from.
    pub needs: f64,
    /// How many people in need dial again 0, 1, 2, 3 and more times.
    pub redials: [f64; 4],
    /// Share of forged numbers that come on a trusted trunk.
    pub forged_on_trusted: f64,
    /// Gates over which the calls are spread, call by call.
    pub edges: usize,
}

impl World {
    /// The usual one, for so many days.
    #[must_use]
    pub fn new(days: u32) -> World {
        World {
            days,
            nuisance: NUISANCE,
            knowing: KNOWS_THE_RULE,
            dialling_on: false,
            needs: NEEDS_PER_YEAR,
            redials: REDIALS,
            forged_on_trusted: FORGED_ON_TRUSTED,
            edges: 1,
        }
    }
}
