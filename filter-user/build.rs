//! Compiles the kernel program; `src/object.rs` embeds it.

use std::process::ExitCode;

#[path = "../filter-ebpf/embed.rs"]
mod embed;

fn main() -> ExitCode {
    embed::object(embed::ebpf::FILTER, "PALANG_OBJECT")
}
