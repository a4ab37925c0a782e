//! The ratchet: findings that were there before their check are counted, and may only become fewer.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

use super::finding::Finding;
use super::tree::Tree;

/// Where the counts are.
pub const PATH: &str = "xtask/tidy/baseline.toml";

const HEADER: &str = "\
# Findings of `cargo xtask tidy` that were there before their check: how many a file may have.
# A count may only become smaller. `cargo xtask tidy --update` writes this file and refuses when
# the sum of a check would grow; run it after you mended something or moved a file.
";

/// How many findings of a check a file may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline(BTreeMap<String, BTreeMap<String, usize>>);

/// All findings, split by the baseline.
#[derive(Debug, Default)]
pub struct Judged {
    /// Findings of files that have more of them than the baseline permits.
    pub new: Vec<Finding>,
    /// Sum of the counts that the baseline covers.
    pub known: usize,
    /// Sum of the counts that the baseline permits and nothing needs.
    pub spare: usize,
}

impl Baseline {
    /// Reads the baseline; empty when the file does not exist.
    ///
    /// # Errors
    /// The file is not TOML, or not of this form.
    pub fn read(tree: &Tree) -> Result<Baseline> {
        match tree.file(PATH) {
            Some(file) => toml::from_str(&file.text).map(Baseline).context(PATH),
            None => Ok(Baseline::default()),
        }
    }

    /// Returns the counts of these findings.
    pub fn of(findings: &[Finding]) -> Baseline {
        let mut counts = BTreeMap::<String, BTreeMap<String, usize>>::new();
        for finding in findings {
            let files = counts.entry(finding.check.to_owned()).or_default();
            *files.entry(finding.path.clone()).or_default() += finding.weight;
        }
        Baseline(counts)
    }

    /// Splits findings into new and known ones.
    pub fn judge(&self, findings: Vec<Finding>) -> Judged {
        let found = Baseline::of(&findings);
        let mut judged = Judged::default();
        for (check, path) in self.keys().union(&found.keys()) {
            let (now, permitted) = (found.count(check, path), self.count(check, path));
            judged.known += now.min(permitted);
            judged.spare += permitted.saturating_sub(now);
        }
        let is_new = |finding: &Finding| {
            let (check, path) = (finding.check, &finding.path);
            found.count(check, path) > self.count(check, path)
        };
        judged.new = findings.into_iter().filter(is_new).collect();
        judged
    }

    /// Returns the text of the baseline after this one.
    ///
    /// # Errors
    /// Names the checks whose sum would grow.
    pub fn update(&self, findings: &[Finding]) -> Result<String, Vec<String>> {
        let found = Baseline::of(findings);
        let grown = found.0.keys().filter_map(|check| {
            let (before, now) = (self.sum(check), found.sum(check));
            // A check that nothing is known of is new: its first counts are its baseline.
            let is_known = self.0.contains_key(check);
            (is_known && now > before).then(|| format!("{check}: {before} before, {now} now"))
        });
        let grown: Vec<_> = grown.collect();
        if grown.is_empty() { Ok(found.text(self)) } else { Err(grown) }
    }

    /// Returns how many findings of `check` the file may have.
    pub fn count(&self, check: &str, path: &str) -> usize {
        self.0.get(check).and_then(|files| files.get(path)).copied().unwrap_or(0)
    }

    fn sum(&self, check: &str) -> usize {
        self.0.get(check).map_or(0, |files| files.values().sum())
    }

    fn keys(&self) -> BTreeSet<(&str, &str)> {
        let keys = self.0.iter().flat_map(|(check, files)| {
            files.keys().map(move |path| (check.as_str(), path.as_str()))
        });
        keys.collect()
    }

    /// Writes the counts as TOML. A check that found nothing keeps its empty table: after that, it
    /// is known, and its sum may not grow again.
    fn text(&self, before: &Baseline) -> String {
        let mut text = HEADER.to_owned();
        let checks: BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        for check in checks {
            text += &format!("\n[{check}]\n");
            for (path, count) in self.0.get(check).into_iter().flatten() {
                text += &format!("{path:?} = {count}\n");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: &'static str, path: &str) -> Finding {
        Finding::new(check, path, 1, "what", "advice")
    }

    fn baseline(text: &str) -> Baseline {
        Baseline::read(&Tree::of(&[(PATH, text)])).unwrap()
    }

    #[test]
    fn judge_finding_above_the_count_is_new() {
        let baseline = baseline("[word]\n\"a.rs\" = 1\n");
        let one = baseline.judge(vec![finding("word", "a.rs")]);
        assert_eq!((one.new.len(), one.known, one.spare), (0, 1, 0));
        let two = baseline.judge(vec![finding("word", "a.rs"), finding("word", "a.rs")]);
        assert_eq!((two.new.len(), two.known), (2, 1));
        let other = baseline.judge(vec![finding("word", "b.rs")]);
        assert_eq!((other.new.len(), other.spare), (1, 1));
        assert_eq!(baseline.judge(vec![finding("circle", "a.rs")]).new.len(), 1);
    }

    #[test]
    fn update_moved_file_is_written_and_more_findings_are_refused() {
        let baseline = baseline("[word]\n\"a.rs\" = 1\n");
        let moved = baseline.update(&[finding("word", "b.rs")]).unwrap();
        assert!(moved.contains("\"b.rs\" = 1") && !moved.contains("a.rs"));
        let more = baseline.update(&[finding("word", "a.rs"), finding("word", "b.rs")]);
        assert_eq!(more, Err(vec!["word: 1 before, 2 now".to_owned()]));
    }

    #[test]
    fn update_check_without_findings_stays_known() {
        let empty = baseline("[word]\n\"a.rs\" = 1\n").update(&[]).unwrap();
        let again = baseline(&empty).update(&[finding("word", "a.rs")]);
        assert_eq!(again, Err(vec!["word: 0 before, 1 now".to_owned()]));
    }
}
