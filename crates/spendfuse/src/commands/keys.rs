//! `spendfuse keys new|list`: who may ask sidecars and proxies, and whom that counts against.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use spendfuse_sidecar::keys::{Key, KeyHash, PREFIX, Place, Right};

use super::Failure;
use super::output::{self, Side, print_table, table};
use crate::settings::{Settings, is_key_name};

/// Bits of a key: nobody guesses them.
const KEY_BYTES: usize = 32;
/// Digits of a hash by which people tell keys apart.
const SHOWN_DIGITS: usize = 12;

#[derive(Args, Debug)]
pub struct KeysArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a key: it is printed once, and kept nowhere
    #[command(
        after_help = "Examples:\n  spendfuse keys new checkout --workspace acme\n  spendfuse keys new team-a --workspace acme --upstream openai-a \\\n    --attribution customer=c-42\n  spendfuse keys new gateway --right check --json\n\nWhat it prints beside the key belongs into spendfuse.toml, or the file that keys_file names; running sidecars and proxies read it within a second."
    )]
    New(NewArgs),
    /// List the keys in force, without the keys themselves
    #[command(after_help = "Example:\n  spendfuse keys list --json | jq '.[].name'")]
    List(ListArgs),
}

#[derive(Args, Debug)]
struct NewArgs {
    /// How the key is spoken of; the source of events that name none
    name: String,
    /// The only workspace that its owner sees and spends in; every one if not given
    #[arg(long)]
    workspace: Option<String>,
    /// What its owner may do: check, usage, state, limits, compat, admin; the first three if not given
    #[arg(long = "right", value_name = "RIGHT")]
    rights: Vec<String>,
    /// Where it may be presented: bearer, header, query; the first two if not given
    #[arg(long, value_name = "PLACE")]
    accept: Vec<String>,
    /// A dimension whose value its owner cannot choose, such as customer=c-42
    #[arg(long, value_name = "NAME=VALUE")]
    attribution: Vec<String>,
    /// An upstream of the proxy that it is for
    #[arg(long, value_name = "NAME")]
    upstream: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &KeysArgs) -> Result<ExitCode, Failure> {
    match &args.what {
        What::New(args) => new(args),
        What::List(args) => {
            list(&settings.keys(), args.json);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A key that was made just now.
pub struct NewKey {
    /// Shown once, and kept nowhere.
    pub secret: String,
    hash: KeyHash,
    /// What stands for it in a file.
    pub entry: String,
}

impl NewKey {
    /// A key with the usual rights.
    pub fn make(
        name: &str,
        workspace: Option<&str>,
        attribution: &[(String, String)],
    ) -> Result<Self, Failure> {
        let pairs = attribution.iter();
        Self::of(&NewArgs {
            name: name.to_owned(),
            workspace: workspace.map(str::to_owned),
            rights: Vec::new(),
            accept: Vec::new(),
            attribution: pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            upstream: Vec::new(),
            json: false,
        })
    }

    fn of(args: &NewArgs) -> Result<Self, Failure> {
        let mut random = [0; KEY_BYTES];
        getrandom::fill(&mut random)
            .map_err(|error| Failure::work(format!("the system gives no random bits: {error}")))?;
        let mut secret = PREFIX.to_owned();
        for byte in random {
            let _ = write!(secret, "{byte:02x}");
        }
        let hash = KeyHash::of(secret.as_bytes());
        Ok(Self {
            entry: entry(args, hash)?,
            secret,
            hash,
        })
    }
}

fn new(args: &NewArgs) -> Result<ExitCode, Failure> {
    let NewKey {
        secret,
        hash,
        entry,
    } = NewKey::of(args)?;
    if args.json {
        output::json(&json!({"key": secret, "hash": hash.to_string(), "toml": entry}));
        return Ok(ExitCode::SUCCESS);
    }
    output::note("The key, which is shown this once:");
    output::line(&secret);
    output::note("Into spendfuse.toml, or the file that keys_file names:");
    output::lines(&entry);
    Ok(ExitCode::SUCCESS)
}

/// What stands for the key in a file.
fn entry(args: &NewArgs, hash: KeyHash) -> Result<String, Failure> {
    if !is_key_name(&args.name) {
        return Err(Failure::usage(
            "a key's name has 1 to 64 letters, digits, - . _ or spaces, such as checkout",
        ));
    }
    let is_known = |known: bool, word: &str, what: &str| match known {
        true => Ok(()),
        false => Err(Failure::usage(format!("{word} is no {what}; see --help"))),
    };
    for right in &args.rights {
        is_known(Right::from_name(right).is_some(), right, "right")?;
    }
    for place in &args.accept {
        is_known(Place::from_name(place).is_some(), place, "place of a key")?;
    }
    let mut text = format!(
        "[[keys]]\nname = {}\nhash = \"{hash}\"\n",
        quoted(&args.name)
    );
    if let Some(workspace) = &args.workspace {
        let _ = writeln!(text, "workspace = {}", quoted(workspace));
    }
    for (field, names) in [
        ("rights", &args.rights),
        ("accept", &args.accept),
        ("upstream", &args.upstream),
    ] {
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            let _ = writeln!(text, "{field} = [{}]", names.join(", "));
        }
    }
    let mut dimensions = Vec::new();
    for pair in &args.attribution {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{pair}: write NAME=VALUE, such as customer=c-42"))
        })?;
        dimensions.push(format!("{} = {}", quoted(name), quoted(value)));
    }
    if !dimensions.is_empty() {
        let _ = writeln!(text, "attribution = {{ {} }}", dimensions.join(", "));
    }
    crate::settings::check_keys(&text).map_err(Failure::usage)?;
    Ok(text)
}

/// A text of TOML, which JSON's are.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn list(keys: &[std::sync::Arc<Key>], as_json: bool) {
    let rights = |key: &Key| key.rights.iter().map(|one| one.name()).collect::<Vec<_>>();
    let accept = |key: &Key| key.accept.iter().map(|one| one.name()).collect::<Vec<_>>();
    if as_json {
        let all = keys.iter().map(|key| {
            json!({
                "name": key.name, "hash": key.hash.to_string(), "workspace": key.workspace,
                "rights": rights(key), "accept": accept(key), "attribution": key.attribution,
                "upstream": key.upstreams,
            })
        });
        output::json(&Value::Array(all.collect()));
        return;
    }
    let mut rows = table([
        ("NAME", Side::Left),
        ("WORKSPACE", Side::Left),
        ("RIGHTS", Side::Left),
        ("ACCEPTED AS", Side::Left),
        ("COUNTS AGAINST", Side::Left),
        ("UPSTREAMS", Side::Left),
        ("HASH", Side::Left),
    ]);
    for key in keys {
        let attribution = key.attribution.iter();
        let attribution: Vec<_> = attribution
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        rows.add_row([
            key.name.clone(),
            key.workspace
                .clone()
                .unwrap_or_else(|| "every one".to_owned()),
            rights(key).join(" "),
            accept(key).join(" "),
            attribution.join(" "),
            key.upstreams.join(" "),
            key.hash.to_string()[..SHOWN_DIGITS].to_owned(),
        ]);
    }
    print_table(&rows);
    if keys.is_empty() {
        output::note("no keys; `spendfuse keys new NAME` makes one");
    }
}
