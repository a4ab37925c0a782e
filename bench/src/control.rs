//! `bench control`: runs the daemon of the release build in a lab of two namespaces. It measures how
//! soon a command is in force, how long an import and a start take, and what they need.

mod enforcement;
mod footprint;
mod start;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use palang::api::client::Client;
use palang_tests::lab::{Daemon, Lab};

use crate::page;
use enforcement::Latencies;
use footprint::Footprint;
use start::Start;

/// Options of `bench control`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Short run with 20,000 blocks that only prints.
    #[arg(long)]
    pub quick: bool,
    /// Also measure a list of 10,000,000: takes long, 8 GB of memory and 7 GB in the temporary folder
    #[arg(long, conflicts_with = "quick")]
    pub ten_million: bool,
    /// Program to measure; by default it is built for release
    #[arg(long, value_name = "FILE")]
    pub palang: Option<PathBuf>,
}

/// Measures, prints, and writes the page.
pub fn run(arguments: &Arguments) -> Result<()> {
    let program = match &arguments.palang {
        Some(path) => path.canonicalize().with_context(|| format!("no {}", path.display()))?,
        None => built()?,
    };
    let (count, repetitions) = if arguments.quick { (20_000, 50) } else { (1_000_000, 200) };
    // A block waits until an import has ended: two hundred repetitions would take hours.
    let longest = Duration::from_secs(if arguments.quick { 20 } else { 300 });
    let lab = Lab::new("bench-control");
    let mut latencies = Vec::new();
    let mut sizes = vec![measure(&lab, &program, count, (repetitions, longest), &mut latencies)?];
    if arguments.ten_million {
        // The latencies are those of a million: they do not depend on the length of a list.
        sizes.push(measure(&lab, &program, 10_000_000, (0, longest), &mut latencies)?);
    }
    let text = tables(&latencies, &sizes);
    println!("{text}");
    if !arguments.quick {
        page::write("control", &text)?;
    }
    Ok(())
}

/// Results for one length of a list.
struct Size {
    count: u32,
    import: Duration,
    while_importing: Footprint,
    after_start: Footprint,
    kept: Start,
    fresh: Start,
}

/// Latencies of one situation.
struct Situation {
    name: String,
    steps: Latencies,
}

/// Measures everything for one length of a list. With no repetitions there are no latencies.
fn measure(
    lab: &Lab,
    program: &Path,
    count: u32,
    (repetitions, longest): (usize, Duration),
    latencies: &mut Vec<Situation>,
) -> Result<Size> {
    let limits = format!("[limits]\nblocks = {}", count + count / 100);
    let mut daemon = Daemon::prepare_program(lab, program.to_owned(), &limits);
    let client = Client::new(&daemon.runtime().join("palang.sock"));
    daemon.spawn();
    start::wait(&mut daemon, &client)?;
    must(&mut daemon.command(&["mode", "enforce"]))?;
    let mut situation = |name: &str, steps| {
        latencies.push(Situation { name: name.to_owned(), steps });
    };
    if repetitions > 0 {
        eprintln!("commands, no blocks");
        situation("no blocks", enforcement::measure(lab, &client, 1, repetitions, longest)?);
    }

    eprintln!("import of {count}");
    let lists = ["list A", "list B"].map(|reason| daemon.folder().join(reason));
    for list in &lists {
        write_list(list, count)?;
    }
    let began = Instant::now();
    let printed = must(&mut import(&daemon, &lists[0]))?;
    let took = began.elapsed();
    ensure!(printed == format!("{count}\t0\t0\t0\t0\t0\n"), "the import printed {printed:?}");
    let while_importing = Footprint::of(&daemon)?;

    if repetitions > 0 {
        eprintln!("commands, {count} blocks");
        let steps = enforcement::measure(lab, &client, 2, repetitions, longest)?;
        situation(&format!("{} blocks", short(count)), steps);

        eprintln!("commands during an import");
        let done = AtomicBool::new(false);
        let steps = thread::scope(|scope| {
            // Each import changes the reason of all blocks.
            let imports = scope.spawn(|| -> Result<usize> {
                let mut imports = 0;
                while !done.load(Ordering::Relaxed) {
                    imports += 1;
                    must(&mut import(&daemon, &lists[imports % lists.len()]))?;
                }
                Ok(imports)
            });
            let steps = enforcement::measure(lab, &client, 3, repetitions, longest);
            done.store(true, Ordering::Relaxed);
            match imports.join() {
                Ok(imports) => eprintln!("{} imports meanwhile", imports?),
                Err(_) => bail!("the import thread panicked"),
            }
            steps
        })?;
        situation(&format!("import of {}", short(count)), steps);
    }
    for list in &lists {
        fs::remove_file(list)?;
    }

    eprintln!("start with {count}");
    let kept = start::with_maps(lab, &mut daemon, &client, &number(1))?;
    let after_start = Footprint::of(&daemon)?;
    eprintln!("start with {count}, as after a restart of the machine");
    let fresh = start::without_maps(lab, &mut daemon, &client, &number(1))?;
    start::stop(&mut daemon);
    Ok(Size { count, import: took, while_importing, after_start, kept, fresh })
}

/// Returns a caller of the list in the format of a trunk.
fn number(index: u32) -> String {
    format!("+62812{index:08}")
}

/// Writes a list whose reason is the name of its file.
fn write_list(path: &Path, count: u32) -> Result<()> {
    let reason = path.file_name().unwrap_or_default().display();
    let mut file = BufWriter::new(File::create(path)?);
    writeln!(file, "number,expires,reason")?;
    for index in 1..=count {
        writeln!(file, "{},2099-01-01T00:00:00Z,{reason}", number(index))?;
    }
    Ok(file.flush()?)
}

fn import(daemon: &Daemon<'_>, list: &Path) -> Command {
    daemon.command(&["block", "import", &list.display().to_string(), "-o", "raw"])
}

/// Runs a command without a time limit and returns its output.
fn must(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {stderr}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Builds `palang` for release and returns its path.
fn built() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    must(Command::new(cargo).current_dir(root).args([
        "build",
        "--release",
        "--package",
        "palang",
    ]))?;
    let own = std::env::current_exe()?;
    // target/PROFILE/palang-bench
    let target = own.parent().and_then(Path::parent).context("no folder of cargo's")?;
    Ok(target.join("release/palang"))
}

fn tables(latencies: &[Situation], sizes: &[Size]) -> String {
    let mut text = String::from(
        "### From command to enforcement\n\n\
         Times begin with the first byte of the request on the daemon's socket. *In force*: the first INVITE on the veth pair \
         meets the new state. *Answered*: the client has the answer. Every INVITE after an answer met the \
         new state. In milliseconds.\n\n\
         | meanwhile | command | times | in force, median | p99 | answered, median | p99 |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for Situation { name, steps } in latencies {
        for (command, times) in steps.rows() {
            let ms = |nanoseconds: &[u64], share| milliseconds(quantile(nanoseconds, share));
            let _ = writeln!(
                text,
                "| {name} | {command} | {} | {} | {} | {} | {} |",
                times.enforced.len(),
                ms(&times.enforced, 0.5),
                ms(&times.enforced, 0.99),
                ms(&times.answered, 0.5),
                ms(&times.answered, 0.99),
            );
        }
    }
    let gaps: Vec<u64> = latencies.iter().flat_map(|one| &one.steps.gaps).copied().collect();
    let _ = write!(
        text,
        "\nINVITEs are {} ms apart (median; p99 {} ms): no time here is finer than that. All of them become \
         call records, which the same disk has to take. A block \
         waits until an import has been written, what lets through does not; then there are fewer repetitions, \
         after five minutes.\n\n\
         ### Long lists\n\n\
         | blocks | {} |\n|---|{}\n",
        milliseconds(quantile(&gaps, 0.5)),
        milliseconds(quantile(&gaps, 0.99)),
        sizes.iter().map(|size| short(size.count)).collect::<Vec<_>>().join(" | "),
        "--:|".repeat(sizes.len()),
    );
    let mut row = |name: &str, cell: &dyn Fn(&Size) -> String| {
        let cells: Vec<_> = sizes.iter().map(cell).collect();
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    };
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    row("import", &|size| seconds(size.import));
    row("import, blocks a second", &|size| {
        format!("{:.0}", f64::from(size.count) / size.import.as_secs_f64())
    });
    row("daemon in it, peak", &|size| mebibytes(size.while_importing.peak));
    row("store after it", &|size| mebibytes(size.while_importing.store));
    row("maps in the kernel", &|size| mebibytes(size.after_start.maps));
    row("start, filter in force: answers after", &|size| seconds(size.kept.answers));
    row("… blocked INVITEs let through from stop to answer", &|size| {
        format!("{} of {}", size.kept.passed, size.kept.sent)
    });
    row("… daemon, peak", &|size| mebibytes(size.after_start.peak));
    row("start after a restart of the machine: answers after", &|size| seconds(size.fresh.answers));
    row("… in force after", &|size| match size.fresh.in_force {
        Some(time) => seconds(time),
        None => "never".to_owned(),
    });
    text
}

/// Returns the quantile of these values; 0 for an empty list.
fn quantile(values: &[u64], share: f64) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

fn milliseconds(nanoseconds: u64) -> String {
    format!("{:.2}", nanoseconds as f64 / 1e6)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Formats a count: `1 M`, `20 k`.
fn short(count: u32) -> String {
    if count.is_multiple_of(1_000_000) {
        format!("{} M", count / 1_000_000)
    } else {
        format!("{} k", count / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<u64> = (1..=200).rev().collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| quantile(&values, share)), [100, 198, 200]);
        assert_eq!(quantile(&[7], 0.99), 7);
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn counts_are_short() {
        assert_eq!([20_000, 1_000_000, 10_000_000].map(short), ["20 k", "1 M", "10 M"]);
    }
}
