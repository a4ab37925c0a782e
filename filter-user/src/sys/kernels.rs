//! Finds the running kernel and the installed ones that could be booted instead.

use std::fs;
use std::path::Path;

/// Has a folder of modules for each kernel of this machine.
const MODULES: &str = "/lib/modules";
const BOOT: &str = "/boot";

/// Returns the release of the running kernel, as `uname -r` prints it.
#[must_use]
pub fn running() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
}

/// Returns the advice for a kernel that refuses the program.
#[must_use]
pub fn advice() -> String {
    let report = "report this with the output of `palang doctor`";
    match previous(&running(), &installed(Path::new(MODULES), Path::new(BOOT))) {
        Some(kernel) => format!("boot the previous kernel: {kernel} is installed; {report}"),
        None => format!("boot the previous kernel: none is installed here; {report}"),
    }
}

/// Returns the installed kernels: they have modules, and an image in one of the two usual places.
fn installed(modules: &Path, boot: &Path) -> Vec<String> {
    let entries = fs::read_dir(modules).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let bootable = |name: &String| {
        boot.join(format!("vmlinuz-{name}")).exists() || modules.join(name).join("vmlinuz").exists()
    };
    names.filter(bootable).collect()
}

/// Returns the newest kernel that is older than the running one; otherwise the newest of the others.
fn previous<'a>(running: &str, installed: &'a [String]) -> Option<&'a String> {
    let others = || installed.iter().filter(|name| *name != running);
    let newest = |older: bool| {
        others()
            .filter(|name| !older || parts(name) < parts(running))
            .max_by(|one, other| parts(one).cmp(&parts(other)))
    };
    newest(true).or_else(|| newest(false))
}

/// Splits a release into numbers and the texts before them, so that 6.9 comes before 6.12.
fn parts(release: &str) -> Vec<(u64, &str)> {
    let mut parts = Vec::new();
    let mut rest = release;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - text);
        let number = rest[text..text + digits].parse().unwrap_or(0);
        parts.push((number, &rest[..text]));
        rest = &rest[text + digits..];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn newest_older_kernel_is_the_previous_one() {
        let debian =
            all(&["6.9.7-amd64", "6.12.57+deb13-amd64", "7.1.13+deb13-amd64", "6.1.0-47-amd64"]);
        let of = |running: &str| previous(running, &debian).map(String::as_str);
        assert_eq!(of("7.1.13+deb13-amd64"), Some("6.12.57+deb13-amd64"));
        assert_eq!(of("6.12.57+deb13-amd64"), Some("6.9.7-amd64"));
        assert_eq!(of("6.1.0-47-amd64"), Some("7.1.13+deb13-amd64"), "only newer ones");
        assert_eq!(previous("7.1.13", &all(&["7.1.13"])), None);
        assert_eq!(previous("", &[]), None);
        let el9 = all(&["5.14.0-503.11.1.el9_5.x86_64", "5.14.0-427.13.1.el9_4.x86_64"]);
        assert_eq!(previous(&el9[0], &el9), Some(&el9[1]));
    }

    #[test]
    fn kernel_with_modules_and_image_is_installed() {
        let folder = std::env::temp_dir().join(format!("palang-kernels-{}", std::process::id()));
        let (modules, boot) = (folder.join("modules"), folder.join("boot"));
        for name in ["6.1.0-47-amd64", "7.2.12-amd64", "6.0.0-left-over"] {
            fs::create_dir_all(modules.join(name)).unwrap();
        }
        fs::create_dir_all(&boot).unwrap();
        fs::write(boot.join("vmlinuz-6.1.0-47-amd64"), "").unwrap();
        fs::write(modules.join("7.2.12-amd64/vmlinuz"), "").unwrap();
        let mut found = installed(&modules, &boot);
        found.sort();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, ["6.1.0-47-amd64", "7.2.12-amd64"]);
        assert!(installed(&modules, &boot).is_empty());
    }

    #[test]
    fn running_kernel_has_a_name() {
        assert!(running().starts_with(|c: char| c.is_ascii_digit()));
        assert!(advice().contains("report this with"));
    }
}
