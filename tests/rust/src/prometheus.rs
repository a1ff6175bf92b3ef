//! A strict reader of the Prometheus text format, for the tests of
//! `metrics_text`.

use mullama::Histogram;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A family of the Prometheus text format.
#[derive(Debug, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// By suffix of the family's name (`_bucket`), then labels.
    pub samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads the Prometheus text format, version 0.0.4, and refuses whatever is not
/// exactly as it should be.
///
/// # Panics
/// On the first line that is not.
pub fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut series = BTreeSet::new();
    let mut lines = text.lines();
    assert!(text.ends_with('\n') && !text.contains("\n\n"));
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a help text");
            assert!(is_name(name) && !text.is_empty(), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            let family = Family { kind: kind.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "twice: {name}");
            current = name.to_owned();
            continue;
        }
        assert!(series.insert(line.rsplit_once(' ').expect("a value").0.to_owned()), "twice: {line}");
        let (name, labels, value) = sample(line);
        let family = families.get_mut(&current).expect("a family before its samples");
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} in {current}"));
        let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        family.samples.push((suffix.to_owned(), labels, value));
    }
    families
}

fn is_name(name: &str) -> bool {
    name.starts_with("mullama_") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> (&str, BTreeMap<String, String>, f64) {
    let end = line.find(['{', ' ']).expect("labels or a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, quoted) = rest.split_once("=\"").expect("a label");
            let mut value = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next().expect("a closing quote") {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next() {
                        Some((_, 'n')) => '\n',
                        Some((_, c @ ('\\' | '"'))) => c,
                        other => panic!("escape {other:?} in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = &quoted[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').expect("a closing brace");
    }
    let value = rest.strip_prefix(' ').expect("a space").parse().expect("a number");
    (name, labels, value)
}

impl Family {
    /// The samples of one engine, or those without labels.
    #[must_use]
    pub fn of(&self, engine: &BTreeMap<String, String>) -> Vec<&(String, BTreeMap<String, String>, f64)> {
        let is_of = |labels: &BTreeMap<String, String>| {
            let mut labels = labels.clone();
            labels.remove("le");
            labels == *engine
        };
        self.samples.iter().filter(|(_, labels, _)| is_of(labels)).collect()
    }

    /// The one value of an engine, or the one without labels.
    ///
    /// # Panics
    /// When there is none or more than one.
    #[must_use]
    pub fn value(&self, engine: &BTreeMap<String, String>) -> f64 {
        match self.of(engine)[..] {
            [(_, _, value)] => *value,
            ref other => panic!("{} values", other.len()),
        }
    }

    /// Compares an engine's histogram.
    ///
    /// # Panics
    /// When they differ.
    pub fn check_histogram(&self, engine: &BTreeMap<String, String>, wanted: &Histogram) {
        let samples = self.of(engine);
        let values = |suffix: &str| samples.iter().filter(|s| s.0 == suffix).map(|s| s.2).collect::<Vec<_>>();
        let bounds: Vec<f64> = samples.iter().filter_map(|s| s.1.get("le")).map(|le| le.parse().unwrap()).collect();
        let wanted_bounds = wanted.bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
        assert_eq!(bounds, wanted_bounds.collect::<Vec<_>>());
        let mut cumulated = 0.0;
        let cumulate = |count: &u64| {
            cumulated += *count as f64;
            cumulated
        };
        assert_eq!(values("_bucket"), wanted.counts.iter().map(cumulate).collect::<Vec<_>>());
        assert_eq!(values("_count"), [cumulated]);
        assert!((values("_sum")[0] - wanted.sum.as_secs_f64()).abs() < 1e-9);
    }
}
