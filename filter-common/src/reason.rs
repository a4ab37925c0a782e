//! Every reason that a packet can get.
//!
//! A number is never used for another reason, also not after its reason is gone.
//! Counters, call records and audit rows of other versions carry it. A new reason
//! also needs its line in `tests/fixtures/pcaps/README.md` when a fixture shows it.

/// The fate of a packet that a reason permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The packet passes in every case.
    Pass,
    /// The packet may be refused; the block's action says how.
    Refuse,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $fate:ident;)*) => {
        /// Why a packet passed or was refused: a closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $number,)* }

        impl Reason {
            /// All reasons, by rising number.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// Returns the name in tables, JSON and metrics: a contract.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// Returns the fate of a packet with this reason: whether it may be refused at all.
            #[must_use]
            pub const fn fate(self) -> Fate {
                match self { $(Reason::$variant => Fate::$fate,)* }
            }

            /// Returns whether it is of an INVITE that could have been a new call: from 20 on, without
            /// the ACK to a refusal.
            #[must_use]
            pub const fn is_attempt(self) -> bool {
                self as u8 >= Reason::BadRequestLine as u8
                    && self as u8 != Reason::RefusalAck as u8
            }

            /// Returns whether it is of an INVITE that could not be read for sure.
            #[must_use]
            pub const fn is_unread(self) -> bool {
                self.is_attempt() && (self as u8) < Reason::UnknownTrunk as u8
            }

            /// Returns whether it is of a caller who sends no number: a name, or a number that is withheld.
            #[must_use]
            pub const fn is_without_number(self) -> bool {
                matches!(self, Reason::NoNumberUri | Reason::NoUser | Reason::NotANumber)
            }

            /// Returns the reason with this number; `None` for one that this version does not know.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Reason> {
                match number { $($number => Some(Reason::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    // 1–19: not a call that this gate reads.
    /// Neither IPv4 nor IPv6 after at most two VLAN tags.
    NotIp = 1, "not-ip", Pass;
    /// IP, but neither UDP nor TCP: ICMP (also one that quotes an INVITE), tunnels, ESP.
    NotUdp = 2, "not-udp", Pass;
    /// TCP from or to a SIP port: a call that XDP cannot read (docs/design.md §3.6).
    SipOverTcp = 3, "sip-over-tcp", Pass;
    /// UDP to a port that is not configured as a SIP port.
    OtherPort = 4, "other-port", Pass;
    /// A header of the link, network or transport layer is cut short or contradicts itself.
    BadPacket = 5, "bad-packet", Pass;
    /// More IPv6 extension headers than are followed (RFC 8200 §4.1).
    ExtensionLimit = 6, "extension-limit", Pass;
    /// UDP length and IP length disagree (RFC 768).
    LengthMismatch = 7, "length-mismatch", Pass;
    /// A later fragment of a datagram that was not refused.
    LaterFragment = 8, "later-fragment", Pass;
    /// A later fragment of a datagram whose first fragment was refused.
    RefusedFragment = 9, "refused-fragment", Refuse;
    /// Not an INVITE request: another method, a response, a keep-alive, not SIP.
    NotInvite = 10, "not-invite", Pass;
    /// An INVITE whose `To` has a tag: it belongs to a running call (RFC 3261 §12.2).
    InDialog = 11, "in-dialog", Pass;
    /// No policy was loaded into the maps.
    NoPolicy = 12, "no-policy", Pass;
    /// The headers do not end in the part of the packet that can be read. The datagram is judged once the
    /// host has put it together.
    SecondLook = 13, "second-look", Pass;
    /// An INVITE in a frame whose destination address is not one of this machine (IEEE 802.3).
    OtherMachine = 14, "other-machine", Pass;

    // 20–39: an INVITE that could not be read for sure.
    /// The request line is not `INVITE SP Request-URI SP SIP/2.0 CRLF` (RFC 3261 §7.1).
    BadRequestLine = 20, "bad-request-line", Pass;
    /// A header field breaks the grammar where it matters for the caller number (RFC 3261 §25.1).
    BadHeader = 21, "bad-header", Pass;
    /// The empty line after the headers is not in the part of the packet that can be read, and no second
    /// look follows.
    HeadersCut = 22, "headers-cut", Pass;
    /// No `From` (RFC 3261 §8.1.1.3).
    FromMissing = 23, "from-missing", Pass;
    /// More than one `From`.
    FromRepeated = 24, "from-repeated", Pass;
    /// No `To` (RFC 3261 §8.1.1.2).
    ToMissing = 25, "to-missing", Pass;
    /// More than one `To`.
    ToRepeated = 26, "to-repeated", Pass;
    /// No `Call-ID`, or an empty one (RFC 3261 §8.1.1.4).
    CallIdMissing = 27, "call-id-missing", Pass;
    /// More than one `Call-ID`.
    CallIdRepeated = 28, "call-id-repeated", Pass;
    /// The identity's URI is neither `sip:`, `sips:` nor `tel:`, or it has no URI.
    NoNumberUri = 29, "no-number-uri", Pass;
    /// The URI has no user part, or an empty one: an address is no caller.
    NoUser = 30, "no-user", Pass;
    /// The user part is a name, or holds a character that no number has.
    NotANumber = 31, "not-a-number", Pass;
    /// More digits than an E.164 number has (15, after prefixes).
    TooManyDigits = 32, "too-many-digits", Pass;
    /// The digits can be read in two ways, or in none, under the trunk's numbering plan.
    AmbiguousNumber = 33, "ambiguous-number", Pass;
    /// The URI is longer than the reader follows.
    UriTooLong = 34, "uri-too-long", Pass;
    /// More than two `P-Asserted-Identity` values (RFC 3325 §9.1).
    TooManyIdentities = 35, "too-many-identities", Pass;
    /// The number has an extension or a subaddress (`;ext=`, `;isub=`), which make another number
    /// (RFC 3966 §4).
    Extension = 36, "extension", Pass;
    /// The trunk's identity is `P-Asserted-Identity` alone, and the INVITE has none (RFC 3325 §9.1).
    PaiMissing = 37, "pai-missing", Pass;

    // 40–59: a call with a caller number, decided in the order of docs/design.md §5.7.
    /// The source is outside every configured trunk.
    UnknownTrunk = 40, "unknown-trunk", Pass;
    /// The emergency override is on.
    Override = 41, "override", Pass;
    /// A protected number or pattern.
    Protected = 42, "protected", Pass;
    /// An allow for this number is in force.
    AllowedNumber = 43, "allowed-number", Pass;
    /// An allow for a prefix of this number is in force.
    AllowedPrefix = 44, "allowed-prefix", Pass;
    /// No block is against this number.
    NotBlocked = 45, "not-blocked", Pass;
    /// Blocks against this number are there, but all have expired.
    BlockExpired = 46, "block-expired", Pass;
    /// A block against this number.
    BlockedNumber = 47, "blocked-number", Refuse;
    /// A block against a prefix of this number.
    BlockedPrefix = 48, "blocked-prefix", Refuse;
    /// Blocked, but everything is only observed (global, trunk or block).
    Observe = 49, "observe", Pass;
    /// Blocked, but this attempt was let through before, less than 64 s ago.
    AttemptPassed = 50, "attempt-passed", Pass;
    /// Blocked, but the caller redialled often enough (docs/design.md §5.8).
    RedialGrant = 51, "redial-grant", Pass;
    /// Blocked, but the kernel's memory of attempts or grants could not be written.
    StateFull = 52, "state-full", Pass;
    /// Blocked, but the centre called this number back a short while ago.
    CallbackGrace = 53, "callback-grace", Pass;
    // 54 and 55 were `emergency-mark` and `unknown-action`.
    /// The ACK to a refusal that this gate sent (its To-tag is our own keyed hash).
    RefusalAck = 56, "refusal-ack", Refuse;
    /// The INVITE has a `Replaces` header field: it continues a running call (RFC 3891 §3).
    Replaces = 57, "replaces", Pass;
    /// Blocked, but the daemon that would answer the call does not run, and the trunk wants such calls to
    /// pass (`without_daemon`).
    WithoutDaemon = 58, "without-daemon", Pass;
}

/// Counters are kept for reason numbers below this.
pub const REASON_NUMBERS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_fit_the_counters() {
        for pair in Reason::ALL.windows(2) {
            assert!(pair[0] < pair[1]);
        }
        for reason in Reason::ALL {
            assert!((*reason as u32) < REASON_NUMBERS);
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
        }
    }

    #[test]
    fn only_these_reasons_refuse() {
        let refusing: Vec<_> =
            Reason::ALL.iter().filter(|r| r.fate() == Fate::Refuse).map(|r| r.name()).collect();
        assert_eq!(
            refusing,
            ["refused-fragment", "blocked-number", "blocked-prefix", "refusal-ack"]
        );
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
