//! Loading the program: what the verifier needs, which capabilities.

use std::os::fd::AsRawFd as _;
use std::sync::mpsc::channel;
use std::time::Duration;

use caps::{CapSet, Capability};
use filter_common::sip::message::Reader;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use palang::datapath::{Plan, Program, Replay, try_forwarded};
use palang::model::policy::Policy;
use palang_tests::common::gates::Gates;
use palang_tests::common::verifier::{Load, watch};

/// Verified instructions allowed on any kernel (the kernel's own limit is 1,000,000): of one reader
/// they were 250,000.
const VERIFIED_MAX: u32 = 480_000;

/// The ceiling of a program with the slim reader, which has to be far from every limit.
const SLIM_VERIFIED_MAX: u32 = 400_000;
/// Bytes of a program's name that the kernel keeps.
const KERNEL_NAME_MAX: usize = 15;

/// Prints how many instructions of a program the verifier walked. Returns an error if that is too many,
/// unknown or a refusal.
fn check(program: &str, loads: &[Load], max: u32) -> Result<(), String> {
    let name = &program[..program.len().min(KERNEL_NAME_MAX)];
    let Some(load) = loads.iter().rfind(|load| load.program == name) else {
        println!("verified instructions of {program}: refused (not tried)");
        return Err(format!("{program}: it was not tried"));
    };
    match (load.result, load.verified()) {
        (Ok(()), Some(verified)) => {
            println!("verified instructions of {program}: {verified} of {max}");
            if verified <= max { Ok(()) } else { Err(format!("{program}: {verified} of {max}")) }
        }
        (Ok(()), None) => {
            println!("verified instructions of {program}: not reported");
            Err(format!("{program}: no number in the log: {}", load.log))
        }
        (Err(error), verified) => {
            let after = verified.map_or_else(String::new, |count| format!(" after {count}"));
            println!("verified instructions of {program}: refused (errno {error}{after})");
            Err(format!("{program}: errno {error}{after}: {}", load.log))
        }
    }
}

// Each program has a line on each kernel, also after one that is refused.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn the_verifier_walks_few_enough_instructions() {
    let mut wrong = Vec::new();
    for program in Program::ALL {
        let plan = Plan::only(program).unwrap();
        if program.frags && !plan.features.frags {
            println!("verified instructions of {}: refused (no xdp.frags)", program.name());
            continue;
        }
        let (_, loads) = watch(|| Replay::load_as(&plan, &Policy::default(), &[]).map(drop));
        let max = match program.reader {
            Reader::Full => VERIFIED_MAX,
            Reader::Slim => SLIM_VERIFIED_MAX,
        };
        wrong.extend(check(program.name(), &loads, max).err());
        if plan.features.replies {
            for (_, name) in program.reply_programs() {
                wrong.extend(check(name, &loads, VERIFIED_MAX).err());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn verifier_walks_few_enough_instructions_of_packets_that_leave() {
    let (_, loads) = watch(|| Replay::load(&Policy::default())?.load_egress());
    check("palang_egress", &loads, VERIFIED_MAX).unwrap_or_else(|wrong| panic!("{wrong}"));
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn load_without_capabilities_is_refused_with_advice() {
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

#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn verifier_walks_few_enough_instructions_of_the_second_look() {
    let (loaded, loads) = watch(|| Gates::new(&Policy::default()).add_second_look());
    if loaded {
        check("palang_second_look", &loads, VERIFIED_MAX).unwrap_or_else(|wrong| panic!("{wrong}"));
    } else {
        println!("verified instructions of palang_second_look: refused (no bpf_loop)");
    }
}

/// Returns a number in the release of the running kernel: 6.12 is 6012.
fn release() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("the release");
    let mut parts = text.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    parts.next().unwrap_or(0) * 1000 + parts.next().unwrap_or(0)
}

// aya loads no programs of netfilter, so no watch sees this load. The file descriptor has the number.
#[cfg_attr(not(kernel), ignore = "needs root and the kernel program")]
#[test]
fn verifier_walks_few_enough_instructions_of_forwarded_packets() {
    let program = match try_forwarded() {
        Ok(program) => program,
        Err(error) => {
            println!("verified instructions of palang_forward: refused ({error})");
            assert!(release() < 6004, "{error}");
            return;
        }
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()));
    let info = info.expect("the program");
    let number = info.lines().find_map(|line| line.strip_prefix("verified_insns:"));
    let verified: u32 = number.and_then(|text| text.trim().parse().ok()).expect("a number");
    println!("verified instructions of palang_forward: {verified} of {VERIFIED_MAX}");
    assert!(verified < VERIFIED_MAX, "{verified}");
}
