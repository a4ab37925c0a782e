//! Loading the program: what the verifier needs, which capabilities.

use std::sync::mpsc::channel;
use std::time::Duration;

use caps::{CapSet, Capability};
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use palang::datapath::Replay;
use palang::policy::Policy;
use palang_tests::gates::Gates;

/// Verified instructions allowed on any kernel (the kernel's own limit is 1,000,000): of one reader
/// they were 250,000.
const VERIFIED_MAX: u32 = 480_000;

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_verifier_walks_few_enough_instructions() {
    let verified = Gates::new(&Policy::default()).kernel().verified_instructions().unwrap();
    let verified = verified.expect("Linux 5.16 or newer");
    println!("verified instructions: {verified} of {VERIFIED_MAX}");
    assert!(verified <= VERIFIED_MAX);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn so_it_does_of_packets_that_leave() {
    let verified = Gates::new(&Policy::default()).kernel().verified_egress_instructions().unwrap();
    let verified = verified.expect("Linux 5.16 or newer");
    println!("verified instructions: {verified} of {VERIFIED_MAX}");
    assert!(verified <= VERIFIED_MAX);
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn three_capabilities_are_enough() {
    // Capabilities belong to a thread.
    std::thread::spawn(|| {
        let enough = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
        caps::set(None, CapSet::Effective, &enough.into_iter().collect()).unwrap();
        let _ = Gates::new(&Policy::default());
    })
    .join()
    .expect("loads with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
}

#[test]
fn without_capabilities_it_is_refused_with_what_to_do() {
    let error = std::thread::spawn(|| {
        caps::clear(None, CapSet::Effective).unwrap();
        Replay::load(&Policy::default()).err().map(|error| error.to_string())
    })
    .join()
    .unwrap()
    .expect("refused");
    assert!(error.contains("CAP_BPF"), "{error}");
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn a_signal_meanwhile_is_no_refusal() {
    extern "C" fn nothing(_: i32) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let (sender, receiver) = channel();
    let loading = std::thread::spawn(move || {
        sender.send(pthread_self()).unwrap();
        let _ = Gates::new(&Policy::default());
    });
    let thread = receiver.recv().unwrap();
    // Not more of them than a load is tried again.
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(60));
        let _ = pthread_kill(thread, Signal::SIGUSR1);
    }
    loading.join().unwrap();
}
