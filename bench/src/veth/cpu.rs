//! Measures CPU time.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Returns the CPU nanoseconds of all threads of a process.
pub fn time(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in threads(pid)? {
        let file = format!("/proc/{pid}/task/{thread}/schedstat");
        // The time of a thread that has just ended is lost, but is negligible.
        let Ok(text) = fs::read_to_string(file) else { continue };
        sum += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// Moves all threads of a process to one CPU; later threads inherit it.
pub fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    for thread in threads(pid)? {
        let to = Pid::from_raw(i32::try_from(thread)?);
        // A thread may have ended by now.
        if let Err(error) = sched_setaffinity(to, &cpus)
            && error != nix::Error::ESRCH
        {
            return Err(error).with_context(|| format!("cannot put {pid} onto CPU {cpu}"));
        }
    }
    Ok(())
}

/// Moves the calling thread to one CPU.
pub fn pin_here(cpu: usize) -> nix::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus)
}

/// Returns a process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        next += 1;
    }
    family
}

/// Waits for an idle machine, for a limited time.
pub struct Idle {
    patience: Duration,
    /// Number of times that the machine was not idle.
    pub disturbed: u32,
}

impl Idle {
    /// Limits the time of all waits together.
    pub fn new(patience: Duration) -> Idle {
        Idle { patience, disturbed: 0 }
    }

    /// Returns when the machine has been idle for 0.4 s, or the time limit is reached.
    pub fn wait(&mut self) -> Result<()> {
        loop {
            let (start, (idle, all)) = (Instant::now(), ticks()?);
            std::thread::sleep(Duration::from_millis(400));
            let (idle_now, all_now) = ticks()?;
            if (idle_now - idle) as f64 > 0.96 * (all_now - all) as f64 {
                return Ok(());
            }
            self.patience = self.patience.saturating_sub(start.elapsed());
            if self.patience.is_zero() {
                self.disturbed += 1;
                return Ok(());
            }
        }
    }

    /// Returns a sentence for below a table, if the machine was not idle.
    pub fn remark(&self) -> String {
        match self.disturbed {
            0 => String::new(),
            times => format!(
                "\n**The machine was not idle before {times} of the measurements: they are unreliable.**\n"
            ),
        }
    }
}

/// Returns the idle time and the total time of all CPUs.
fn ticks() -> Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    let idle = fields.get(3).context("no idle time in /proc/stat")?;
    Ok((*idle, fields.iter().sum()))
}

fn threads(pid: u32) -> Result<Vec<u32>> {
    let folder = PathBuf::from(format!("/proc/{pid}/task"));
    let entries = fs::read_dir(&folder).with_context(|| format!("process {pid} has ended"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
