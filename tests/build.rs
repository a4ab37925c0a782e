//! Finds out whether the tests can run the kernel program.

#[path = "../filter-ebpf/embed.rs"]
#[allow(dead_code, reason = "the build scripts of other packages use the rest")]
mod embed;

fn main() {
    println!("cargo:rerun-if-changed=../filter-ebpf/embed.rs");
    println!("cargo:rerun-if-changed=../xtask/src/ebpf.rs");
    for place in embed::ebpf::places().into_iter().filter(|place| place.exists()) {
        println!("cargo:rerun-if-changed={}", place.display());
    }
    embed::kernel_tests();
}
