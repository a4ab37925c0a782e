//! Who calls too often is blocked for a while, where the trunk vouches for the number.

use std::time::Duration;

use palang_tests::lab::{Lab, TRUNK};

use crate::gate::{Gate, eventually};

const CALLER: &str = "+6281234567890";
/// Attempts that are so far apart are separate ones.
const SEPARATE: Duration = Duration::from_millis(5100);

fn config(trusts_from: bool) -> String {
    format!(
        "[[trunk]]\nname = \"telkom\"\nsources = [\"{TRUNK}\"]\ntrusts_from = {trusts_from}\n\
         [auto_rate]\nattempts = 2\nblock = \"2h\"\n[redial]\nattempts = 2\n"
    )
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn more_attempts_than_are_allowed_block_a_trusted_number_only() {
    let lab = Lab::new("auto-rate");
    let gate = Gate::start(&lab, &config(false));
    let allowed = "+6281200000001";
    gate.does(&["allow", "add", allowed]);
    let call_thrice = || {
        for calls in [2, 2, 1] {
            std::thread::sleep(SEPARATE);
            // A second one at once is a failover, and no attempt.
            for _ in 0..calls {
                assert_eq!(gate.passing(&[CALLER, allowed]), [CALLER, allowed]);
            }
        }
    };
    call_thrice();
    assert!(gate.passes(CALLER), "its number may be forged");
    // Later than these calls, and on record: none of them is counted with what comes now.
    let last = gate.call("+6281299999999").call_id;
    let recorded = || !gate.rows(&["calls", "--call-id", &last]).is_empty();
    eventually("the record of a call", recorded);

    gate.daemon.configure(&config(true));
    gate.daemon.signal("HUP");
    eventually("the configuration in force", || {
        gate.does(&["config", "show", gate.daemon.config_file().to_str().unwrap()])["trunk"][0]["trusts_from"]
            == true
            && gate.last("reload").is_some()
    });
    call_thrice();
    eventually("a block", || !gate.rows(&["block", "list"]).is_empty());
    let blocks = gate.rows(&["block", "list", "--origin", "auto"]);
    assert_eq!(blocks.len(), 1, "not of who is allowed: {blocks:?}");
    assert_eq!(
        (&blocks[0]["origin"], &blocks[0]["author"]),
        (&"auto-rate".into(), &"daemon".into())
    );
    assert_eq!(blocks[0]["reason"], "more than 2 attempts within 15m");
    assert_eq!(gate.last("block add").unwrap()["origin"], "auto-rate");
    assert!(!gate.passes(CALLER));
    std::thread::sleep(SEPARATE);
    assert!(gate.passes(CALLER), "a redial grant opens it as any other block");
    assert_eq!(gate.findings(), [""; 0]);
}
