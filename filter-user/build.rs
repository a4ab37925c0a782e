//! Compiles the kernel program; `filter-user/src/datapath/object.rs` embeds it.

use std::process::ExitCode;

#[path = "../filter-ebpf/embed.rs"]
mod embed;

fn main() -> ExitCode {
    // The packages are the same for every user who builds them.
    if std::env::var_os("PROFILE").is_some_and(|profile| profile == "debug") {
        embed::kernel_tests();
    } else {
        println!("cargo:rustc-check-cfg=cfg(kernel)");
    }
    embed::object(embed::ebpf::FILTER, "PALANG_OBJECT")
}
