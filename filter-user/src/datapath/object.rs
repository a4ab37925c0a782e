//! The compiled kernel program, part of this binary.

/// The ELF reader of aya casts parts of the object to structures.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

// A slice, so that no length has to be written down.
static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!(env!("PALANG_OBJECT")));

/// The object file of `filter-ebpf`, made by `build.rs`.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// The version of this program. A line of its own has the compiler and the linker of [`OBJECT`]:
/// "rustc 1.96.0 (LLVM 22.1.8), bpf-linker 0.13.0"; `none` if they were missing.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), "\nkernel program: ", env!("PALANG_TOOLCHAIN"));
