//! Compiles the reference programs and the flood; `src/kernel/programs.rs` and `src/veth/flood.rs`
//! embed them.

use std::process::ExitCode;

#[path = "../filter-ebpf/embed.rs"]
#[allow(dead_code, reason = "the build scripts of other packages use the rest")]
mod embed;

fn main() -> ExitCode {
    let bench = embed::object(embed::ebpf::BENCH, "BENCH_OBJECT");
    if bench != ExitCode::SUCCESS {
        return bench;
    }
    embed::object(embed::ebpf::FLOOD, "FLOOD_OBJECT")
}
