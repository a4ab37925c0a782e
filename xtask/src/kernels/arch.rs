//! The two architectures that kernels are booted on.

/// An architecture that Debian has kernels for and qemu has a machine for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    /// Returns Debian's name, which is part of the names of its packages.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// Returns the name of the target that rustc compiles for.
    pub fn target(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-unknown-linux-gnu",
            Arch::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Returns the packages that downloading, building, packing and booting call.
    pub fn packages(self) -> &'static [&'static str] {
        match self {
            Arch::Amd64 => {
                &["qemu-system-x86", "busybox-static", "cpio", "binutils", "debian-archive-keyring"]
            }
            Arch::Arm64 => &[
                "qemu-system-arm",
                "cpio",
                "gcc-aarch64-linux-gnu",
                "libc6-dev-arm64-cross",
                "debian-archive-keyring",
            ],
        }
    }

    /// Returns the emulator with its machine.
    ///
    /// Emulated (TCG): nested KVM does not work everywhere, and 6 s per boot are bearable.
    pub fn qemu(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Arch::Amd64 => ("qemu-system-x86_64", &["-accel", "tcg", "-cpu", "max"]),
            Arch::Arm64 => {
                // PAuth is what emulating costs most for, and the tests ask nothing of it.
                ("qemu-system-aarch64", &["-accel", "tcg", "-M", "virt", "-cpu", "max,pauth=off"])
            }
        }
    }

    /// Returns the kernel's name of the serial line.
    pub fn console(self) -> &'static str {
        match self {
            Arch::Amd64 => "ttyS0",
            Arch::Arm64 => "ttyAMA0",
        }
    }
}
