//! The flood, and the two XDP programs that the filter is compared with: `filter-ebpf/flood`.

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::maps::{Array, HashMap, MapData};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, Pod};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use nix::sys::pthread::{Pthread, pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use palang_tests::lab::{INTERFACE, Lab, TRUNK_INTERFACE};

use super::{SENDER_CPU, cpu, invites};
use order::{Order, Variant};

#[path = "../../../filter-ebpf/flood/order.rs"]
pub mod order;

/// The ELF reader of aya casts parts of the object to structures, so it must be aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("FLOOD_OBJECT")));

/// Frames per batch of the kernel.
const BATCH: u32 = 64;
/// Limit of runs; a flood is stopped long before.
const FOR_EVER: u32 = u32::MAX;
/// Signal that interrupts the system call of the flood.
const STOP: Signal = Signal::SIGUSR1;

// SAFETY: numbers and bytes, without padding.
unsafe impl Pod for Order {}
// SAFETY: as above.
unsafe impl Pod for Variant {}

/// The loaded sender.
pub struct Flood {
    program: Arc<Ebpf>,
    order: Array<MapData, Order>,
    trunk: File,
    interface: u32,
    first: Vec<u8>,
}

impl Flood {
    /// Loads the sender with all its INVITEs.
    pub fn load(lab: &Lab) -> Result<Flood> {
        signal_hook::flag::register(STOP as i32, Arc::new(AtomicBool::new(false)))?;
        let mut program = Ebpf::load(&OBJECT.0).context("the flood's object")?;
        let mut table = map(&mut program, "INVITES")?;
        let all = invites::all()?;
        for (index, invite) in (0..).zip(&all) {
            Array::<_, Variant>::set(&mut table, index, invite, 0)?;
        }
        let order = Array::try_from(program.take_map("ORDER").context("no ORDER")?)?;
        load(&mut program, "sender")?;
        let first = all.first().context("no INVITE")?.frame.to_vec();
        let trunk = lab.in_trunk(|| File::open("/proc/thread-self/ns/net"))?;
        let interface = lab.in_trunk(|| if_nametoindex(TRUNK_INTERFACE))?;
        Ok(Flood { program: Arc::new(program), order, trunk, interface, first })
    }

    /// Floods until the result is dropped, with N INVITEs per second (`None`: as fast as possible). Each
    /// call is sent `copies` times (0: the same 512 calls repeatedly).
    pub fn start(&mut self, per_second: Option<u32>, copies: u32) -> Result<Flooding<'_>> {
        let interval = per_second.map_or(0, |rate| 1_000_000_000 / u64::from(rate.max(1)));
        let interface = self.interface;
        self.order.set(0, Order { interval, interface, copies, ..Order::default() }, 0)?;
        let (program, first) = (Arc::clone(&self.program), self.first.clone());
        let trunk = self.trunk.try_clone()?;
        let (here, there) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            cpu::pin_here(SENDER_CPU)?;
            setns(&trunk, CloneFlags::CLONE_NEWNET)?;
            let program: &Xdp = program.program("sender").context("no sender")?.try_into()?;
            here.send(pthread_self())?;
            let result = program.test_run(TestRunOptions {
                data_in: Some(&first),
                repeat: FOR_EVER,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::default()
            });
            match result {
                Err(error) if is_interrupted(&error) => Ok(()),
                other => other.map(drop).context("the kernel does not send live frames"),
            }
        });
        let id = there.recv();
        let mut flooding = Flooding { order: &self.order, thread: Some(thread), id: id.ok() };
        if flooding.id.is_none() {
            flooding.stop()?;
        }
        Ok(flooding)
    }
}

/// Checks whether a signal ended the system call.
fn is_interrupted(error: &aya::programs::ProgramError) -> bool {
    let mut error: Option<&dyn std::error::Error> = Some(error);
    while let Some(one) = error {
        let io = one.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::Interrupted) {
            return true;
        }
        error = one.source();
    }
    false
}

/// A running flood.
pub struct Flooding<'a> {
    order: &'a Array<MapData, Order>,
    thread: Option<JoinHandle<Result<()>>>,
    id: Option<Pthread>,
}

impl Flooding<'_> {
    /// Returns the number of INVITEs sent so far.
    pub fn sent(&self) -> Result<u64> {
        Ok(self.order.get(&0, 0)?.sent)
    }

    /// Waits until the flood sends; fails if it does not.
    pub fn wait_for_first(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.sent()? == 0 {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            ensure!(!ended && Instant::now() < deadline, "the flood does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Ends the flood; returns an error if it had already stopped.
    pub fn stop(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        while let Some(id) = self.id
            && !thread.is_finished()
        {
            // Repeated, because the thread may not be in the system call yet.
            pthread_kill(id, STOP)?;
            std::thread::sleep(Duration::from_millis(2));
        }
        thread.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for Flooding<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the flood: {error:#}");
        }
    }
}

/// The minimal and the simplest XDP program, for comparison.
pub struct Others(Ebpf);

impl Others {
    /// Loads them with the list of blocked numbers.
    pub fn load() -> Result<Others> {
        let mut program = Ebpf::load(&OBJECT.0).context("the flood's object")?;
        let mut list: HashMap<_, u64, u8> =
            HashMap::try_from(program.map_mut("BLOCKED").context("no BLOCKED")?)?;
        for index in 0..invites::BLOCKED {
            list.insert(invites::key(&invites::blocked(index))?, 1, 0)?;
        }
        load(&mut program, "null")?;
        load(&mut program, "naive_filter")?;
        Ok(Others(program))
    }

    /// Attaches one of them to the driver of the gate until the result is dropped.
    pub fn attach(&mut self, lab: &Lab, name: &str) -> Result<Attached<'_>> {
        let program: &mut Xdp = self.0.program_mut(name).context("no such program")?.try_into()?;
        let link = lab.in_gate(|| program.attach(INTERFACE, XdpMode::Driver))?;
        Ok(Attached { program, link: Some(link) })
    }
}

/// A program attached to the gate.
pub struct Attached<'a> {
    program: &'a mut Xdp,
    link: Option<XdpLinkId>,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if let Err(error) = self.program.detach(link) {
            eprintln!("cannot detach: {error}");
        }
    }
}

fn map<'a>(program: &'a mut Ebpf, name: &str) -> Result<Array<&'a mut MapData, Variant>> {
    Ok(Array::try_from(program.map_mut(name).with_context(|| format!("no {name}"))?)?)
}

fn load(program: &mut Ebpf, name: &str) -> Result<()> {
    let program = program.program_mut(name).with_context(|| format!("no {name}"))?;
    let program: &mut Xdp = program.try_into()?;
    program.load().with_context(|| format!("the kernel refuses {name}"))
}
