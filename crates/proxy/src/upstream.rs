//! Providers' APIs behind the proxy, as data.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::route::split;

/// Where Amazon's hosts end, and how those of its other partitions do, by what their regions begin with.
const OF_AMAZON: &str = ".amazonaws.com";
const PARTITIONS: [(&str, &str); 2] = [("cn-", ".amazonaws.com.cn"), ("eusc-", ".amazonaws.eu")];

/// Whose protocol an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// OpenAI's, and everybody's who took it over.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
    /// OpenAI's, as Azure has it: deployments in paths, keys in a header of their own.
    Azure,
    /// Amazon Bedrock's runtime.
    Bedrock,
}

/// Every shape with its name in settings.
const SHAPES: [(&str, Shape); 5] = [
    ("openai", Shape::OpenAi),
    ("anthropic", Shape::Anthropic),
    ("gemini", Shape::Gemini),
    ("azure", Shape::Azure),
    ("bedrock", Shape::Bedrock),
];

impl FromStr for Shape {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let mut known = SHAPES.iter();
        let found = known.find(|(known, _)| *known == name);
        found
            .map(|(_, shape)| *shape)
            .ok_or("write openai, anthropic, gemini, azure or bedrock")
    }
}

/// When the proxy asks an OpenAI-like upstream for the usage of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskUsage {
    /// Where the upstream is known to take the question.
    #[default]
    Auto,
    /// Wherever the caller does not ask itself.
    Always,
    /// Nowhere: streams whose callers do not ask are charged by estimate.
    Never,
}

impl FromStr for AskUsage {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("write auto, always or never"),
        }
    }
}

/// A provider's API behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Scheme, host, port and what goes before every path, without a slash at the end. A name in braces
    /// stands for the second part of callers' paths: `https://{resource}.openai.azure.com`.
    pub base_url: String,
    /// Its protocol.
    pub shape: Shape,
    /// Whose prices hold.
    pub provider: String,
    /// Sent in place of the callers' keys; they need none then. Never printed.
    pub key: Option<spendfuse_sidecar::Token>,
    /// When it is asked for a stream's usage.
    pub ask_usage: AskUsage,
}

impl Upstream {
    /// The makers' own APIs, by the first part of a path.
    pub fn known() -> BTreeMap<String, Self> {
        let known = [
            ("openai", "https://api.openai.com", Shape::OpenAi, "openai"),
            (
                "anthropic",
                "https://api.anthropic.com",
                Shape::Anthropic,
                "anthropic",
            ),
            (
                "gemini",
                "https://generativelanguage.googleapis.com",
                Shape::Gemini,
                "gemini",
            ),
            (
                "azure",
                "https://{resource}.openai.azure.com",
                Shape::Azure,
                "azure",
            ),
            (
                "bedrock",
                "https://bedrock-runtime.{region}.amazonaws.com",
                Shape::Bedrock,
                "bedrock",
            ),
        ];
        let upstream = |(name, base_url, shape, provider): (&str, &str, Shape, &str)| {
            let upstream = Self {
                base_url: base_url.to_owned(),
                shape,
                provider: provider.to_owned(),
                key: None,
                ask_usage: AskUsage::Auto,
            };
            (name.to_owned(), upstream)
        };
        known.into_iter().map(upstream).collect()
    }

    /// Its base for a caller's `path`, what the path has in the place of the name in braces, and the
    /// rest of the path. `None` where the path has nothing there that could be one.
    pub(crate) fn base_for<'p>(&self, path: &'p str) -> Option<(String, &'p str, &'p str)> {
        let Some((before, rest)) = self.base_url.split_once('{') else {
            return Some((self.base_url.clone(), "", path));
        };
        let (name, after) = rest.split_once('}')?;
        let (place, path) = split(path);
        let is_one = match name {
            // `s3` would be somebody's bucket.
            "region" => is_region(place),
            _ => is_label(place),
        };
        let after = match name {
            "region" => in_partition(place, after),
            _ => after.to_owned(),
        };
        is_one.then(|| (format!("{before}{place}{after}"), place, path))
    }

    /// Whether callers choose a part of its address.
    pub fn has_choice(&self) -> bool {
        self.base_url.contains('{')
    }

    /// Whether it is a server of one's own, whose ids are no identities: Ollama counts to 999.
    pub(crate) fn is_private(&self) -> bool {
        self.base_url.starts_with("http://")
    }
}

/// What follows a region in an address, as it is in the region's partition.
fn in_partition(region: &str, after: &str) -> String {
    let (host, path) = after.split_at(after.find('/').unwrap_or(after.len()));
    let mut partitions = PARTITIONS.iter();
    let partition = partitions.find(|(begin, _)| region.starts_with(*begin));
    match (partition, host.strip_suffix(OF_AMAZON)) {
        (Some((_, end)), Some(host)) => format!("{host}{end}{path}"),
        _ => after.to_owned(),
    }
}

/// A part of a host's name.
fn is_label(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(is_plain)
}

/// As AWS writes them: `us-east-1`, `us-gov-west-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let Some((number, words)) = parts.split_last() else {
        return false;
    };
    let is_word =
        |word: &&str| word.len() >= 2 && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    words.len() >= 2 && words.iter().all(is_word) && is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_address_is_taken_from_the_path_and_leads_to_no_other_host() {
        let known = Upstream::known();
        let base = |name: &str, path: &str| {
            let found = known[name].base_for(path);
            found.map(|(base, place, rest)| format!("{base} {place} {rest}"))
        };
        assert_eq!(
            base("azure", "/my-resource/openai/v1/x").as_deref(),
            Some("https://my-resource.openai.azure.com my-resource /openai/v1/x")
        );
        assert_eq!(
            base("bedrock", "/us-gov-west-1/model/m/converse").as_deref(),
            Some(
                "https://bedrock-runtime.us-gov-west-1.amazonaws.com us-gov-west-1 /model/m/converse"
            )
        );
        for (region, host) in [
            ("cn-north-1", "bedrock-runtime.cn-north-1.amazonaws.com.cn"),
            (
                "eusc-de-east-1",
                "bedrock-runtime.eusc-de-east-1.amazonaws.eu",
            ),
        ] {
            assert_eq!(
                base("bedrock", &format!("/{region}/model/m/converse")),
                Some(format!("https://{host} {region} /model/m/converse"))
            );
        }
        assert_eq!(
            base("openai", "/v1/x").as_deref(),
            Some("https://api.openai.com  /v1/x")
        );
        for (name, path) in [
            ("azure", "/evil.example/x"),
            ("azure", "//x"),
            ("azure", ""),
            ("azure", "/a%2eb/x"),
            ("azure", "/a@b/x"),
            ("bedrock", "/s3/model/m/converse"),
            ("bedrock", "/us-east/model/m/converse"),
            ("bedrock", "/us-east-1x/model/m/converse"),
        ] {
            assert_eq!(base(name, path), None, "{name} {path}");
        }
    }

    #[test]
    fn only_amazons_own_hosts_end_as_their_partition_does() {
        for (region, after, wanted) in [
            (
                "cn-north-1",
                ".vpce.amazonaws.com/x",
                ".vpce.amazonaws.com.cn/x",
            ),
            ("cn-north-1", ".amazonaws.com.cn", ".amazonaws.com.cn"),
            ("cn-north-1", ".gateway.example", ".gateway.example"),
            ("cn-north-1", "/x.amazonaws.com", "/x.amazonaws.com"),
            ("us-east-1", ".amazonaws.com", ".amazonaws.com"),
        ] {
            assert_eq!(in_partition(region, after), wanted, "{region} {after}");
        }
    }
}
