//! Compiles the programs that the filter is timed beside; `src/kernel/programs.rs` embeds them.

use std::process::ExitCode;

#[path = "../filter-ebpf/embed.rs"]
mod embed;

fn main() -> ExitCode {
    embed::object(embed::ebpf::BENCH, "BENCH_OBJECT")
}
