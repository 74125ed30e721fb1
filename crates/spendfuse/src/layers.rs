//! Crates use crates of the layers below them only, as `docs/architecture.md` lists them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// For tests only, whoever uses them.
const FOR_TESTS: [&str; 3] = ["devstack", "testkit", "year"];

#[test]
fn every_crate_has_a_layer_and_uses_only_those_below() {
    let layers = layers();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if FOR_TESTS.contains(&name.as_str()) {
            continue;
        }
        let own = layers.get(&name);
        let own = own.unwrap_or_else(|| panic!("docs/architecture.md has no layer of {name}"));
        for used in dependencies(&name) {
            let below = layers.get(&used).unwrap_or(&usize::MAX);
            assert!(below < own, "{name} uses {used}, which is not below it");
        }
    }
}

/// Crates with the number of their line.
fn layers() -> BTreeMap<String, usize> {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let mut layers = BTreeMap::new();
    for line in page.lines() {
        let Some((number, crates)) = line.split_once(". `") else {
            continue;
        };
        let Ok(number) = number.parse() else { continue };
        // The page has other lists, but none of names alone.
        for name in crates.trim_end_matches('`').split("`, `") {
            layers.insert(name.to_owned(), number);
        }
    }
    layers
}

/// What a crate uses of the others, tests left out.
fn dependencies(name: &str) -> Vec<String> {
    let manifest = root().join("crates").join(name).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let (_, section) = manifest.split_once("[dependencies]").unwrap_or_default();
    let section = section.split("\n[").next().unwrap_or_default();
    let of_ours = section.lines().filter(|line| line.starts_with("spendfuse"));
    of_ours
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .map(|package| {
            package
                .strip_prefix("spendfuse-")
                .unwrap_or(package)
                .to_owned()
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
