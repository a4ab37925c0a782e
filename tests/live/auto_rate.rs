//! A number that calls too often is blocked for a while, where the trunk vouches for it.

use palang_tests::lab::{Lab, TRUNK, TRUNK6, message};

use crate::gate::{Gate, SEPARATE, eventually};

const CALLER: &str = "+6281234567890";

/// A number that comes over a trunk that never vouches for numbers.
const FORGED: &str = "+6281234567891";

fn config(trusts_from: bool) -> String {
    format!(
        "[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\ntrusts_from = {trusts_from}\n\
         [[trunk]]\nname = \"carrier\"\nsources = [\"{TRUNK6}\"]\n\
         [auto_rate]\nattempts = 2\nblock = \"2h\"\n[redial]\nattempts = 2\n"
    )
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn attempts_above_the_auto_rate_block_a_trusted_number_only() {
    let lab = Lab::new("auto-rate");
    let gate = Gate::start(&lab, &config(false));
    let allowed = "+6281200000001";
    gate.does(&["allow", "add", allowed]);
    // The trunk does not vouch for the number yet. This call is not counted with those that come.
    let last = gate.call(CALLER).call_id;
    let recorded = || !gate.rows(&["calls", "--call-id", &last]).is_empty();
    eventually("the record of a call", recorded);

    gate.daemon.configure(&config(true));
    gate.daemon.signal("HUP");
    eventually("the configuration in force", || {
        gate.does(&["config", "show", gate.daemon.config_file().to_str().unwrap()])["trunk"][0]["trusts_from"]
            == true
            && gate.last("reload").is_some()
    });
    let sender = lab.sender();
    for attempt in 0..3 {
        if attempt > 0 {
            // The daemon compares the times that the kernel writes into the ring of events. Nobody can
            // set that clock, so the time has to pass.
            std::thread::sleep(SEPARATE);
        }
        let invite = message::invite(FORGED, &format!("{attempt}@forged"));
        sender.send6(5060, invite.as_bytes()).unwrap();
        // A second call at once is a failover, and no attempt.
        for _ in 0..if attempt < 2 { 2 } else { 1 } {
            assert_eq!(gate.passing(&[CALLER, allowed]), [CALLER, allowed]);
        }
    }
    eventually("a block", || !gate.rows(&["block", "list"]).is_empty());
    let blocks = gate.rows(&["block", "list", "--origin", "auto"]);
    assert_eq!(blocks.len(), 1, "not of an allowed or a forged number: {blocks:?}");
    assert_eq!(blocks[0]["number"], CALLER[1..]);
    assert_eq!(
        (&blocks[0]["origin"], &blocks[0]["author"]),
        (&"auto-rate".into(), &"daemon".into())
    );
    assert_eq!(blocks[0]["reason"], "more than 2 attempts within 15m");
    assert_eq!(gate.last("block add").unwrap()["origin"], "auto-rate");
    assert!(!gate.passes(CALLER));
    gate.age(CALLER, SEPARATE);
    assert!(gate.passes(CALLER), "a redial grant opens it as any other block");
    // The review comes after the call, and is not on disk for a moment.
    eventually("a review", || !gate.rows(&["review", "list"]).is_empty());
    eventually("a status without a finding", || gate.findings().is_empty());
}
