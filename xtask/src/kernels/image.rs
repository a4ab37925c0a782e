//! Kernels to boot: Debian's, downloaded and not installed, or one's own.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::apt::Apt;
use super::arch::Arch;

/// Which kernels of a suite the matrix has.
enum Pick {
    /// The newest of one line: "6.1".
    Line(&'static str),
    /// The newest of every line that the suite has; in short runs, of the newest line.
    EveryLine,
}

/// The suites of Debian that are looked into, oldest kernel first.
///
/// Of each line it is the cloud kernel: serial console, BPF's compiler and BTF are built in, and it is a
/// tenth of the size of the others.
const MATRIX: [(&str, Pick); 4] = [
    ("bullseye-security", Pick::Line("5.10")),
    ("bookworm-security", Pick::Line("6.1")),
    ("trixie-security", Pick::Line("6.12")),
    ("trixie-backports", Pick::EveryLine),
];

/// What a short run has of it, beside the newest line.
const SHORT: [&str; 2] = ["5.10", "6.1"];

/// A kernel that qemu can boot.
pub struct Kernel {
    /// "6.1.0-57-cloud-amd64"
    pub version: String,
    /// Where it comes from: a suite of Debian, or a path.
    pub origin: String,
    pub image: PathBuf,
}

/// Puts the kernels of the matrix into `folder`, oldest first.
pub fn matrix(folder: &Path, arch: Arch, short: bool) -> Result<Vec<Kernel>> {
    let mut kernels = Vec::new();
    for (suite, pick) in &MATRIX {
        if matches!(pick, Pick::Line(line) if short && !SHORT.contains(line)) {
            continue;
        }
        let apt = suite_of(folder, suite, arch)?;
        let mut versions = newest_of_each_line(&versions(&apt, arch)?);
        match pick {
            Pick::Line(wanted) => versions.retain(|version| line(version) == line(wanted)),
            Pick::EveryLine if short => drop(versions.drain(..versions.len().saturating_sub(1))),
            Pick::EveryLine => {}
        }
        ensure!(
            !versions.is_empty(),
            "{suite} of Debian has no cloud kernel for {}",
            arch.debian()
        );
        for version in versions {
            kernels.push(fetch(folder, &apt, suite, &version, arch)?);
        }
    }
    Ok(kernels)
}

/// Returns the kernel that a person names by its image or its version.
pub fn named(folder: &Path, arch: Arch, name: &str) -> Result<Kernel> {
    let path = Path::new(name);
    if path.is_file() {
        let version = match path.file_name().map(|file| file.to_string_lossy()) {
            Some(file) if file == "vmlinuz" => path.parent().and_then(Path::file_name),
            _ => path.file_name(),
        };
        let version = version.unwrap_or(path.as_os_str()).to_string_lossy();
        return Ok(own(path, version.trim_start_matches("vmlinuz-")));
    }
    let installed = [format!("/boot/vmlinuz-{name}"), format!("/usr/lib/modules/{name}/vmlinuz")];
    if let Some(path) = installed.iter().map(Path::new).find(|path| path.is_file()) {
        return Ok(own(path, name));
    }
    for (suite, _) in &MATRIX {
        let apt = suite_of(folder, suite, arch)?;
        if !packages(&apt, name)?.is_empty() {
            return fetch(folder, &apt, suite, name, arch);
        }
    }
    bail!(
        "{name} is no file, is not installed ({}), and no package of Debian ({}) is linux-image-{name}: \
         name an image by its path",
        installed.join(", "),
        MATRIX.map(|(suite, _)| suite).join(", ")
    )
}

fn own(path: &Path, version: &str) -> Kernel {
    let version = version.to_owned();
    Kernel { version, origin: path.display().to_string(), image: path.to_owned() }
}

fn suite_of(folder: &Path, suite: &str, arch: Arch) -> Result<Apt> {
    Apt::open(folder.join("apt").join(format!("{suite}-{}", arch.debian())), &[suite], arch)
}

/// Returns the versions of all cloud kernels of a suite.
fn versions(apt: &Apt, arch: Arch) -> Result<Vec<String>> {
    let ending = format!("-cloud-{}", arch.debian());
    let names = apt.search(&format!("^linux-image-[0-9].*{ending}$"))?;
    let version = |name: &String| name.strip_prefix("linux-image-").map(str::to_owned);
    // "6.1-cloud-amd64" has no image: it depends on the newest.
    let is_version = |version: &String| version.trim_end_matches(&ending).matches('.').count() > 1;
    Ok(names.iter().filter_map(version).filter(is_version).collect())
}

/// Returns the packages that have the image of a kernel, the likeliest first: since Linux 6.19
/// `linux-image-*` only depends on `linux-binary-*`.
fn packages(apt: &Apt, version: &str) -> Result<Vec<String>> {
    let escaped = version.replace('.', "[.]").replace('+', "[+]");
    let mut names = apt.search(&format!("^linux-(image|binary)-{escaped}$"))?;
    names.sort(); // "linux-binary-…" before "linux-image-…"
    Ok(names)
}

fn fetch(folder: &Path, apt: &Apt, suite: &str, version: &str, arch: Arch) -> Result<Kernel> {
    let images = folder.join("images").join(arch.debian());
    let image = images.join(version);
    if !image.exists() {
        let unpacked = folder.join("unpacked");
        if unpacked.exists() {
            fs::remove_dir_all(&unpacked)?; // what an interrupted run left
        }
        let package = packages(apt, version)?;
        let package = package.first().with_context(|| format!("{suite} has no {version} now"))?;
        apt.unpack(package, None, &unpacked)?;
        // The second since Linux 7.2.
        let places =
            [format!("boot/vmlinuz-{version}"), format!("usr/lib/modules/{version}/vmlinuz")];
        let place = places.iter().map(|place| unpacked.join(place)).find(|place| place.is_file());
        let place = place.with_context(|| {
            format!("{package} has no kernel at {}: look where it is now", places.join(" or "))
        })?;
        fs::create_dir_all(&images)?;
        fs::rename(place, &image)?;
        fs::remove_dir_all(&unpacked)?;
    }
    Ok(Kernel { version: version.to_owned(), origin: suite.to_owned(), image })
}

/// Returns the numbers of a version, which order it among those of one suite.
fn numbers(version: &str) -> Vec<u32> {
    // "-cloud-amd64" has a number, too.
    let version = version.split("-cloud").next().unwrap_or(version);
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Returns the line of a version: (6, 1) of "6.1.0-57-cloud-amd64".
fn line(version: &str) -> Vec<u32> {
    let mut numbers = numbers(version);
    numbers.truncate(2);
    numbers
}

/// Returns the newest version of each line, oldest line first.
fn newest_of_each_line(versions: &[String]) -> Vec<String> {
    let mut sorted = versions.to_vec();
    sorted.sort_by_key(|version| (line(version), Reverse(numbers(version))));
    sorted.dedup_by_key(|version| line(version));
    sorted
}

#[cfg(test)]
mod tests {
    use super::newest_of_each_line;

    #[test]
    fn the_newest_of_each_line_is_taken() {
        let versions = [
            "7.3.4+deb13-cloud-amd64",
            "6.12.95+deb12-cloud-amd64",
            "6.12.115+deb13-cloud-amd64",
            "6.12.115+deb13.1-cloud-amd64",
            "6.1.0-57-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-0.deb11.52-cloud-amd64",
            "7.0.13+deb13-cloud-arm64",
            "7.0.9+deb13-cloud-arm64",
        ];
        let newest = newest_of_each_line(&versions.map(str::to_owned));
        assert_eq!(
            newest,
            [
                "6.1.0-57-cloud-amd64",
                "6.12.115+deb13.1-cloud-amd64",
                "7.0.13+deb13-cloud-arm64",
                "7.3.4+deb13-cloud-amd64",
            ]
        );
    }

    #[test]
    fn nothing_is_the_newest_of_nothing() {
        assert!(newest_of_each_line(&[]).is_empty());
    }
}
