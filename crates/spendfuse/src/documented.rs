//! What the documentation names exists: commands, flags, settings, variables, metrics, topics, make
//! targets, files. And every command says of itself what people and programs need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use spendfuse_domain::Topics;

use crate::CommandLine;
use crate::settings::{FREE_TABLES, SETTINGS, is_known_variable};

/// Commands that run until they are stopped: what they have to say is their log.
const SERVICES: [&str; 6] = ["up", "processor", "loader", "sidecar", "proxy", "notifier"];
/// Flags of programs that are not ours.
const FOREIGN_FLAGS: [&str; 22] = [
    "--add-config",
    "--alter",
    "--delete",
    "--entity-name",
    "--entity-type",
    "--group",
    "--build",
    "--exact",
    "--features",
    "--lib",
    "--idle",
    "--ignored",
    "--nocapture",
    "--partitions",
    "--profile",
    "--release",
    "--reset-offsets",
    "--test",
    "--json-body",
    "--from-beginning",
    "--bootstrap-server",
    "--with-previous",
];
/// Fenced blocks whose names are not ours; tests of their own run them.
const OTHER_LANGUAGES: [&str; 3] = ["python", "sql", "nginx"];
/// A role in ClickHouse.
const READER: &str = "spendfuse_reader";
/// Metrics of Prometheus' histograms end so.
const HISTOGRAM_ENDS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// A piece of a page that names things: between backticks, or a line of a fenced block.
struct Named {
    place: String,
    text: String,
}

#[test]
fn every_command_has_an_example_and_json_where_it_prints_data() {
    for (path, command) in leaves(&CommandLine::command(), "spendfuse") {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        assert!(help.contains("Example"), "{path} --help has no example");
        assert!(
            help.contains(&path),
            "the example of {path} is of another command"
        );
        let has_json = longs(&command).contains("--json");
        assert!(
            has_json || SERVICES.contains(&command.get_name()),
            "{path} has no --json"
        );
    }
}

#[test]
fn commands_and_flags_of_the_documentation_exist() {
    let tree = CommandLine::command();
    let all: Vec<(String, clap::Command)> = leaves(&tree, "spendfuse");
    let mut flags: BTreeSet<String> = FOREIGN_FLAGS.iter().map(ToString::to_string).collect();
    for (_, command) in &all {
        flags.extend(longs(command));
    }
    let others = sources();
    for named in pages() {
        for call in calls(&named.text) {
            let known = all.iter().any(|(path, _)| is_call_of(&call, path));
            assert!(
                known,
                "{}: there is no `spendfuse {}`",
                named.place,
                call.join(" ")
            );
        }
        for word in named
            .text
            .split(|one: char| one.is_whitespace() || "\"'=`[]()".contains(one))
        {
            let is_flag = word.starts_with("--") && word.len() > 2;
            if !is_flag || flags.contains(word) {
                continue;
            }
            let field = word[2..].replace('-', "_");
            let declared = format!("{field}:");
            let is_others = others.iter().any(|text| text.contains(&declared));
            assert!(is_others, "{}: nothing has a flag {word}", named.place);
        }
    }
}

#[test]
fn settings_and_variables_of_the_documentation_exist() {
    let sections: BTreeSet<&str> = SETTINGS
        .iter()
        .filter_map(|setting| Some(setting.key.split_once('.')?.0))
        .collect();
    let topics = Topics::new("");
    let topics = [
        topics.meter_changelog,
        topics.meter_ids,
        topics.ledger_changelog,
        topics.notifier_changelog,
        topics.notifier_requests,
    ];
    for named in pages() {
        for word in words(&named.text, ".") {
            let is_setting = word
                .split_once('.')
                .is_some_and(|(section, name)| sections.contains(section) && !name.is_empty());
            let is_file = Path::new(word).extension().is_some_and(|end| end == "rs");
            let known = SETTINGS.iter().any(|setting| setting.key == word)
                || FREE_TABLES.iter().any(|(prefix, _)| {
                    word.starts_with(prefix) || word == prefix.trim_end_matches('.')
                })
                || topics.iter().any(|topic| topic == word);
            assert!(
                known || is_file || !is_setting,
                "{}: no setting {word}",
                named.place
            );
        }
        for word in words(&named.text, "") {
            let is_variable = word.starts_with("SPENDFUSE_") && word.len() > "SPENDFUSE_".len();
            assert!(
                !is_variable || is_known_variable(word),
                "{}: no variable {word}",
                named.place
            );
        }
    }
}

#[test]
fn toml_of_the_documentation_is_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("spendfuse.toml");
    for (place, language, text) in blocks() {
        if language != "toml" {
            continue;
        }
        fs::write(&file, &text).unwrap();
        let nothing = std::collections::BTreeMap::<String, String>::new();
        let resolved = crate::settings::resolve(Some(&file), &nothing, &[])
            .unwrap_or_else(|error| panic!("{place}: {error}"));
        crate::settings::Settings::new(resolved).unwrap_or_else(|error| panic!("{place}: {error}"));
    }
}

#[test]
fn metrics_of_the_documentation_exist() {
    let sources = sources();
    let is_written = |name: &str| {
        let literal = format!("\"{name}\"");
        sources.iter().any(|text| text.contains(&literal))
    };
    let is_crate = |name: &str| {
        let folder = name.strip_prefix("spendfuse_").unwrap_or(name);
        root().join("crates").join(folder).is_dir()
    };
    for named in pages() {
        // What begins with `@` is a location of nginx.
        for word in words(&named.text.replace("@spendfuse_", "@"), "") {
            let is_other = word.ends_with('_') || is_crate(word) || word == READER;
            if !word.starts_with("spendfuse_") || is_other {
                continue;
            }
            let base = HISTOGRAM_ENDS.iter().find_map(|end| word.strip_suffix(end));
            let exists = is_written(word) || base.is_some_and(is_written);
            assert!(exists, "{}: there is no {word}", named.place);
        }
    }
}

#[test]
fn tests_that_the_page_about_faults_names_exist() {
    let page = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let (_, section) = page.split_once("| the one command | test |\n").unwrap();
    let rows = section
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let mut tests = sources();
    for folder in ["tests/tests", "tests/tests/pipeline"] {
        let files = fs::read_dir(root().join(folder)).unwrap();
        let paths = files.map(|entry| entry.unwrap().path());
        let sources = paths.filter(|path| path.extension().is_some_and(|end| end == "rs"));
        tests.extend(sources.map(|path| fs::read_to_string(path).unwrap()));
    }
    for row in rows {
        let named = row
            .rsplit(" | ")
            .next()
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2);
        let mut count = 0;
        for name in named {
            let function = format!("fn {name}(");
            let exists = tests.iter().any(|text| text.contains(&function));
            assert!(exists, "there is no test {name}");
            count += 1;
        }
        assert!(count > 0, "no test: {row}");
    }
}

#[test]
fn make_targets_files_and_topics_of_the_documentation_exist() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let has_target = |name: &str| {
        makefile
            .lines()
            .any(|line| line.starts_with(&format!("{name}:")))
    };
    let topics = Topics::new("spendfuse.");
    let topics: Vec<&str> = topics.all().iter().map(|topic| topic.name).collect();
    // Not topics, but types of events, the file of settings, and a module of the SDK for Python.
    let others = [
        "spendfuse.litellm.callback",
        "spendfuse.revenue",
        "spendfuse.session_end",
        "spendfuse.toml",
        "spendfuse.spend",
    ];
    for named in pages() {
        let mut rest = named.text.as_str();
        while let Some((_, after)) = rest.split_once("make ") {
            let target: &str = after
                .split(|one: char| !one.is_ascii_lowercase())
                .next()
                .unwrap();
            let is_command = named.text.starts_with("make ") || named.text.contains("&& make ");
            assert!(
                !is_command || has_target(target),
                "{}: no `make {target}`",
                named.place
            );
            rest = after;
        }
        for word in words(&named.text, "./-*") {
            let is_topic = word.starts_with("spendfuse.") && !word.ends_with('.');
            let known = topics.contains(&word) || others.contains(&word);
            assert!(known || !is_topic, "{}: no topic {word}", named.place);
            assert!(
                !is_path(word) || exists(word),
                "{}: no file {word}",
                named.place
            );
        }
    }
    for (place, text) in texts() {
        let page = root().join(&place);
        for link in links(&text) {
            let target = page.parent().unwrap().join(link);
            assert!(target.exists(), "{place}: the link {link} leads nowhere");
        }
    }
}

/// Every command without commands below it, with its whole name.
fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
    let below = command
        .get_subcommands()
        .filter(|one| one.get_name() != "help");
    let leaves: Vec<_> = below
        .flat_map(|one| leaves(one, &format!("{path} {}", one.get_name())))
        .collect();
    match leaves.is_empty() {
        true => vec![(path.to_owned(), command.clone())],
        false => leaves,
    }
}

/// Flags of a command, those of every command included.
fn longs(command: &clap::Command) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["--help", "--version"].map(str::to_owned).into();
    for argument in command
        .get_arguments()
        .chain(CommandLine::command().get_arguments())
    {
        let aliases = argument.get_visible_aliases().unwrap_or_default();
        let own = argument.get_long().into_iter().chain(aliases);
        names.extend(own.map(|name| format!("--{name}")));
    }
    names
}

/// The words after each `spendfuse ` that begins a command.
fn calls(text: &str) -> Vec<Vec<String>> {
    let mut calls = Vec::new();
    let starts = text
        .match_indices("spendfuse ")
        .map(|(place, word)| (place, place + word.len()));
    for (start, end) in starts {
        let before = text[..start].trim_end();
        let begins = before.is_empty() || before.ends_with(['/', '|', '&', ';', '$', '"', '[']);
        let is_word = |word: &&str| {
            !word.is_empty()
                && word
                    .chars()
                    .all(|one| one.is_ascii_lowercase() || one == '|')
        };
        let call: Vec<String> = text[end..]
            .split(' ')
            .take_while(is_word)
            .map(str::to_owned)
            .collect();
        if begins && !call.is_empty() {
            calls.push(call);
        }
    }
    calls
}

/// Whether a call begins with the command `path`, or with a beginning of it. `a|b` is either.
fn is_call_of(call: &[String], path: &str) -> bool {
    let names = path.split(' ').skip(1);
    names
        .zip(call)
        .all(|(name, word)| word.split('|').any(|one| one == name))
}

/// Runs of letters, digits, `_` and the characters of `more`.
fn words<'a>(text: &'a str, more: &'static str) -> impl Iterator<Item = &'a str> {
    let is_inside =
        move |one: char| one.is_ascii_alphanumeric() || one == '_' || more.contains(one);
    text.split(move |one| !is_inside(one))
        .filter(|word| !word.is_empty())
}

fn is_path(word: &str) -> bool {
    let folders = [
        "crates/", "docs/", "tests/", "schemas/", "deploy/", "scripts/", "data/", "benches/",
        "fuzz/",
    ];
    folders.iter().any(|folder| word.starts_with(folder))
}

fn exists(path: &str) -> bool {
    let path = path.trim_end_matches(['.', '-']);
    path.contains('*') || root().join(path).exists()
}

/// Targets of links to files of the repository.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every page with its text; the pages are named from the repository's root.
fn texts() -> Vec<(String, String)> {
    let mut pages = vec!["README.md".to_owned(), "schemas/README.md".to_owned()];
    for folder in ["docs", "docs/formats"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    pages.sort();
    let read = |page: String| (page.clone(), fs::read_to_string(root().join(page)).unwrap());
    pages.into_iter().map(read).collect()
}

/// Fenced blocks: page, language, text. Wrong turns are wrong on purpose.
fn blocks() -> Vec<(String, String, String)> {
    let mut blocks = Vec::new();
    for (page, text) in texts() {
        for (number, part) in text.split("```").enumerate() {
            let (language, text) = part.split_once('\n').unwrap_or_default();
            if number % 2 == 1 && page != "docs/wrong-turns.md" {
                blocks.push((page.clone(), language.to_owned(), text.to_owned()));
            }
        }
    }
    blocks
}

/// What all pages name.
fn pages() -> Vec<Named> {
    let ours =
        |(_, language, _): &(String, String, String)| !OTHER_LANGUAGES.contains(&language.as_str());
    let lines = blocks()
        .into_iter()
        .filter(ours)
        .flat_map(|(place, _, text)| {
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.into_iter().map(move |text| Named {
                place: place.clone(),
                text,
            })
        });
    let mut all: Vec<Named> = lines.collect();
    for (page, text) in texts() {
        let outside = text.split("```").step_by(2);
        for spans in outside.map(|part| part.split('`').skip(1).step_by(2)) {
            if page != "docs/wrong-turns.md" {
                all.extend(spans.map(|text| Named {
                    place: page.clone(),
                    text: text.to_owned(),
                }));
            }
        }
    }
    all
}

/// The sources of all programs.
fn sources() -> Vec<String> {
    let mut folders = ["crates", "tests/src", "benches/src", "fuzz/src"]
        .map(|name| root().join(name))
        .to_vec();
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && !path.ends_with("documented.rs")
            {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    texts
}
