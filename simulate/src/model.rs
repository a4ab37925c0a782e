//! The model of the centres and their callers. Each figure has a source, or is marked as an
//! assumption, if nobody has measured or published it.

/// Jakarta Siaga 112, 2024: 637,292 calls in a year.
pub const CALLS_PER_DAY: f64 = 637_292.0 / 366.0;
/// Share of calls that are pranks or silent. Sources report 20 to 80 percent.
/// Pranks were 23 % in Jakarta (2024), 48 % in Romania (2019), 56 % in Surabaya (2019), 78 % in
/// Telangana (2020) and 81 % in Batman (2024).
pub const NUISANCE: f64 = 0.5;
/// Both ends of that range.
pub const NUISANCE_ENDS: [f64; 2] = [0.2, 0.8];
/// Of these, pranks. Purworejo 112, 2022 to July 2024: 1,147 pranks, 1,170 silent calls.
pub const PRANKS_OF_NUISANCE: f64 = 1147.0 / (1147.0 + 1170.0);

/// Mean number of pranks per number over its time. Assumption.
pub const PRANKS_PER_NUMBER: f64 = 10.0;
/// Inequality of the numbers: exponent of a Pareto distribution. Assumption.
pub const PARETO: f64 = 1.2;
/// Largest number of pranks per number and year. Romania, first half of 2020: one caller more than 9,500.
pub const PRANKS_MOST: f64 = 9_500.0;
/// Mean number of pranks in a row. Assumption.
pub const PRANKS_IN_A_ROW: f64 = 3.0;
/// Mean number of days that a number is used for pranks. Assumption. Blocks and warnings do not
/// shorten it: Romania's warnings by SMS (2008/09) did not lower the share.
pub const PRANK_DAYS: f64 = 45.0;
/// Probability that a refused prankster who does not know the rule dials again. Assumption.
pub const PRANKSTER_REDIALS: f64 = 0.4;
/// Share of numbers whose prankster knows the redial rule and uses it. Assumption.
pub const KNOWS_THE_RULE: f64 = 0.05;
/// Such a share if the rule is widely known. Assumption.
pub const KNOWN_WIDELY: f64 = 0.3;

/// Emergency calls per number and year. Romania 2019: 52 % of 11.3 million calls, for about 19
/// million people. It is an assumption that a prankster's telephone has the same rate.
pub const NEEDS_PER_YEAR: f64 = 0.3;
/// Share of numbers that have another owner within a year (prepaid SIM). Assumption.
pub const CHANGES_HANDS: f64 = 0.2;
/// Share of emergency calls after which the same number calls once more within 45 minutes.
/// Assumption.
pub const CALLS_AGAIN: f64 = 0.3;
/// Shares of people in need who dial again 0, 1, 2, 3 and more times if nobody answers. Assumption, and
/// the most important one.
pub const REDIALS: [f64; 4] = [0.15, 0.20, 0.25, 0.40];
/// Such shares for people who give up soon. Assumption.
pub const REDIALS_HASTY: [f64; 4] = [0.35, 0.30, 0.20, 0.15];
/// Probability of each further attempt after the third. Assumption.
pub const REDIALS_ON: f64 = 0.5;

/// Share of silent calls from a telephone in a pocket or with a stuck key, which keeps calling.
/// Assumption.
pub const SILENT_REPEATED: f64 = 0.3;
/// Mean number of calls of such a telephone. Assumption.
pub const SILENT_IN_A_ROW: f64 = 5.0;
/// Share of silent calls of people in need who cannot speak. Assumption.
pub const HIDING: f64 = 0.01;
/// Mean number of calls of a person who is hiding. Assumption.
pub const HIDING_CALLS: f64 = 3.0;

/// Number of innocent people who call often: watchmen, care homes, lonely people. Assumption.
pub const FREQUENT_NUMBERS: u32 = 200;
/// Calls per day of one of them. Assumption.
pub const FREQUENT_PER_DAY: f64 = 0.3;

/// Share of answered pranks that a call-taker reports. Assumption.
pub const PRANKS_REPORTED: f64 = 0.6;
/// Share of answered silent calls that are reported. Assumption.
pub const SILENT_REPORTED: f64 = 0.3;
/// Share of answered real calls that are mistakenly reported as pranks. Assumption.
pub const MISTAKEN: f64 = 0.005;
/// Seconds between a call and its report. Assumption.
pub const REPORT_AFTER: std::ops::Range<f64> = 60.0..300.0;

/// Number of innocent people whose number is forged per year. Assumption.
pub const FORGED_PER_YEAR: f64 = 24.0;
/// Share of these on a trunk that is still trusted for the number. Assumption.
pub const FORGED_ON_TRUSTED: f64 = 0.2;
/// Pranks per forged number, and the days within which they happen. Assumption.
pub const FORGED_CALLS: std::ops::RangeInclusive<u32> = 2..=8;
/// Days over which these are spread. Assumption.
pub const FORGED_DAYS: f64 = 3.0;

/// Share of calls that a carrier sends twice within 5 s, with different Call-IDs. Assumption.
pub const SENT_TWICE: f64 = 0.02;
/// Seconds after the first INVITE at which an unanswered one is retransmitted: timers A and B of RFC
/// 3261 §17.1.1.2 with T1 = 500 ms.
pub const SENT_AGAIN: [f64; 6] = [0.5, 1.5, 3.5, 7.5, 15.5, 31.5];

/// Seconds of ringing before a caller hangs up and dials again. Assumption.
pub const HANGS_UP: std::ops::Range<f64> = 2.0..8.0;
/// Seconds until a telephone reports that nobody answers. At most timer B, 32 s (RFC 3261
/// §17.1.1.2); the rest is an assumption.
pub const GIVES_UP: std::ops::Range<f64> = 6.0..32.0;
/// Such seconds where the carrier calls again by machine: the telephone learns of no time-out. Assumption.
pub const WAITS_ON: std::ops::Range<f64> = 6.0..64.0;
/// Seconds to dial again after that. Assumption.
pub const DIALS: std::ops::Range<f64> = 3.0..10.0;
/// Seconds to dial again for a caller who first tries something else. Assumption.
pub const SOMETHING_ELSE: std::ops::Range<f64> = 60.0..480.0;
/// Shares of callers who hang up and who wait; the others first try something else. Assumption.
pub const HANG_UP_OR_WAIT: [f64; 2] = [0.3, 0.5];
/// Seconds between the attempts of a prankster who knows the rule.
pub const KNOWING: std::ops::Range<f64> = 5.0..6.0;
/// Seconds from a prank or a silent call to the next one. Assumption.
pub const NEXT_CALL: std::ops::Range<f64> = 60.0..300.0;
/// Seconds from an emergency call to the next one of the same person. Assumption.
pub const CALLS_AGAIN_AFTER: std::ops::Range<f64> = 120.0..2_700.0;

/// Seconds in a day.
pub const DAY: f64 = 86_400.0;
/// Days in a year.
pub const YEAR: f64 = 365.0;

/// Parameters that differ between simulated centres.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Number of days.
    pub days: u32,
    /// Share of calls that are pranks or silent.
    pub nuisance: f64,
    /// Share of pranksters who know the redial rule.
    pub knowing: f64,
    /// Whether these dial up to the largest doubled N; otherwise they dial N times and stop.
    pub dialling_on: bool,
    /// Emergency calls per year from a number that is used for pranks.
    pub needs: f64,
    /// Shares of people in need who dial again 0, 1, 2, 3 and more times.
    pub redials: [f64; 4],
    /// Share of forged numbers that arrive on a trusted trunk.
    pub forged_on_trusted: f64,
    /// Number of gates over which the calls are spread, call by call.
    pub edges: usize,
    /// Seconds until a telephone reports that nobody answers.
    pub waits: std::ops::Range<f64>,
    /// Seconds after which the carrier calls again by machine, while the caller waits; `None`: it does not.
    pub machine: Option<f64>,
}

impl World {
    /// Returns the default centre for N days.
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
            waits: GIVES_UP,
            machine: None,
        }
    }
}
