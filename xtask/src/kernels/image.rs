//! Kernels to boot: Debian's, downloaded and not installed, or one's own.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use super::apt::Apt;
use super::arch::Arch;
use super::runs::Tests;

/// Which kernels of a suite the matrix has.
enum Pick {
    /// The newest of one line: "6.1".
    Line(&'static str),
    /// The newest of every line that the suite has. All tests run on the newest line, and those of loading
    /// on the others; short runs leave the others out.
    EveryLine,
}

/// The suites of Debian that are looked into, oldest kernel first. An old release has less for arm64 in
/// its security suite than its index says.
///
/// Of each line it is the cloud kernel. Serial console, BPF's compiler and BTF are built in, and it
/// is a tenth of the size of the others.
const MATRIX: [(&[&str], Pick); 4] = [
    (&["bullseye-security", "bullseye"], Pick::Line("5.10")),
    (&["bookworm-security"], Pick::Line("6.1")),
    (&["trixie-security"], Pick::Line("6.12")),
    (&["trixie-backports"], Pick::EveryLine),
];

/// The lines of a short run, beside the newest line.
const SHORT: [&str; 2] = ["5.10", "6.1"];

/// A kernel that qemu can boot.
pub struct Kernel {
    /// "6.1.0-57-cloud-amd64"
    pub version: String,
    /// Where it comes from: a suite of Debian, or a path.
    pub origin: String,
    pub image: PathBuf,
    /// The tests that run on it.
    pub tests: Tests,
}

/// Where kernels are put, for which architecture, and what is to run on them.
pub struct Images {
    pub folder: PathBuf,
    pub arch: Arch,
    pub tests: Tests,
}

impl Images {
    /// Fetches the kernels of the matrix, oldest first.
    pub fn matrix(&self, short: bool) -> Result<Vec<Kernel>> {
        let mut kernels = Vec::new();
        for (suites, pick) in &MATRIX {
            if matches!(pick, Pick::Line(line) if short && !SHORT.contains(line)) {
                continue;
            }
            let apt = self.apt(suites)?;
            let mut lines = lines(&self.versions(&apt)?);
            if let Pick::Line(wanted) = pick {
                lines.retain(|versions| {
                    versions.iter().any(|version| line(version) == line(wanted))
                });
            }
            let Some(last) = lines.pop() else {
                bail!("{} of Debian has no cloud kernel for {}", suites[0], self.arch.debian());
            };
            for versions in lines.iter().filter(|_| !short) {
                kernels.push(self.newest(&apt, suites, versions, Tests::Loading)?);
            }
            kernels.push(self.newest(&apt, suites, &last, self.tests)?);
        }
        Ok(kernels)
    }

    /// Fetches the first of these versions that the mirror has.
    fn newest(
        &self,
        apt: &Apt,
        suites: &[&str],
        versions: &[String],
        tests: Tests,
    ) -> Result<Kernel> {
        let mut failed = None;
        for version in versions {
            match self.fetch(apt, suites, version, tests) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => {
                    eprintln!("{version} is left out, trying the one before: {error:#}");
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| anyhow!("there is no version to fetch")))
    }

    /// Returns the kernel that a person names by its image or its version.
    pub fn named(&self, name: &str) -> Result<Kernel> {
        let path = Path::new(name);
        if path.is_file() {
            let version = match path.file_name().map(|file| file.to_string_lossy()) {
                Some(file) if file == "vmlinuz" => path.parent().and_then(Path::file_name),
                _ => path.file_name(),
            };
            let version = version.unwrap_or(path.as_os_str()).to_string_lossy();
            return Ok(self.own(path, version.trim_start_matches("vmlinuz-")));
        }
        let installed = places(name).map(|place| format!("/{place}"));
        if let Some(path) = installed.iter().map(Path::new).find(|path| path.is_file()) {
            return Ok(self.own(path, name));
        }
        for (suites, _) in &MATRIX {
            let apt = self.apt(suites)?;
            if !packages(&apt, name)?.is_empty() {
                return self.fetch(&apt, suites, name, self.tests);
            }
        }
        bail!(
            "{name} is no file, is not installed ({}), and no package of Debian ({}) is \
             linux-image-{name}: name an image by its path",
            installed.join(", "),
            MATRIX.map(|(suites, _)| suites.join(", ")).join(", ")
        )
    }

    fn own(&self, path: &Path, version: &str) -> Kernel {
        Kernel {
            version: version.to_owned(),
            origin: path.display().to_string(),
            image: path.to_owned(),
            tests: self.tests,
        }
    }

    fn apt(&self, suites: &[&str]) -> Result<Apt> {
        let name = format!("{}-{}", suites.join("-"), self.arch.debian());
        Apt::open(self.folder.join("apt").join(name), suites, self.arch)
    }

    /// Returns the versions of all cloud kernels of a suite.
    fn versions(&self, apt: &Apt) -> Result<Vec<String>> {
        let ending = format!("-cloud-{}", self.arch.debian());
        let names = apt.search(&format!("^linux-image-[0-9].*{ending}$"))?;
        let version = |name: &String| name.strip_prefix("linux-image-").map(str::to_owned);
        // "6.1-cloud-amd64" has no image: it depends on the newest.
        let whole = |version: &String| version.trim_end_matches(&ending).matches('.').count() > 1;
        Ok(names.iter().filter_map(version).filter(whole).collect())
    }

    /// Downloads a kernel of Debian, unless it has been before.
    fn fetch(&self, apt: &Apt, suites: &[&str], version: &str, tests: Tests) -> Result<Kernel> {
        let images = self.folder.join("images").join(self.arch.debian());
        let image = images.join(version);
        if !image.exists() {
            let unpacked = self.folder.join("unpacked");
            if unpacked.exists() {
                fs::remove_dir_all(&unpacked)?; // what an interrupted run left
            }
            let package = packages(apt, version)?;
            let package = package.first().with_context(|| format!("no package has {version}"))?;
            apt.unpack(package, None, &unpacked)?;
            let places = places(version).map(|place| unpacked.join(place));
            let place = places.iter().find(|place| place.is_file()).with_context(|| {
                format!("{package} has no kernel where others have it: look into it")
            })?;
            fs::create_dir_all(&images)?;
            fs::rename(place, &image)?;
            fs::remove_dir_all(&unpacked)?; // mostly modules
        }
        let origin = format!("Debian {}", suites[0].trim_end_matches("-security"));
        Ok(Kernel { version: version.to_owned(), origin, image, tests })
    }
}

/// Returns where a system or a package has the image of a kernel: the second place since Linux 7.2 in
/// Debian, and always in Fedora.
fn places(version: &str) -> [String; 2] {
    [format!("boot/vmlinuz-{version}"), format!("usr/lib/modules/{version}/vmlinuz")]
}

/// Returns the packages that have the image of a kernel, the likeliest first: since Linux 6.19
/// `linux-image-*` only depends on `linux-binary-*`.
fn packages(apt: &Apt, version: &str) -> Result<Vec<String>> {
    let escaped = version.replace('.', "[.]").replace('+', "[+]");
    let mut names = apt.search(&format!("^linux-(image|binary)-{escaped}$"))?;
    names.sort(); // "linux-binary-…" before "linux-image-…"
    Ok(names)
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

/// Returns the versions of each line, newest first, and the oldest line first.
fn lines(versions: &[String]) -> Vec<Vec<String>> {
    let mut sorted = versions.to_vec();
    sorted.sort_by_key(|version| (line(version), Reverse(numbers(version))));
    sorted.dedup(); // in two suites
    sorted.chunk_by(|one, next| line(one) == line(next)).map(<[String]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn versions_of_a_line_are_together_and_the_newest_is_first() {
        let versions = [
            "7.3.4+deb13-cloud-amd64",
            "6.12.95+deb12-cloud-amd64",
            "6.12.115+deb13-cloud-amd64",
            "6.12.115+deb13.1-cloud-amd64",
            "6.1.0-57-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-0.deb11.52-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "7.0.13+deb13-cloud-arm64",
            "7.0.9+deb13-cloud-arm64",
        ];
        let lines = lines(&versions.map(str::to_owned));
        let expected: [&[&str]; 4] = [
            &["6.1.0-57-cloud-amd64", "6.1.0-9-cloud-amd64", "6.1.0-0.deb11.52-cloud-amd64"],
            &[
                "6.12.115+deb13.1-cloud-amd64",
                "6.12.115+deb13-cloud-amd64",
                "6.12.95+deb12-cloud-amd64",
            ],
            &["7.0.13+deb13-cloud-arm64", "7.0.9+deb13-cloud-arm64"],
            &["7.3.4+deb13-cloud-amd64"],
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn no_versions_are_no_lines() {
        assert!(lines(&[]).is_empty());
    }
}
