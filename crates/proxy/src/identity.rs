//! By which source and id a call is known: `schemas/source-vectors.json`.

use spendfuse_pricing::provider::canonical;

/// What names one call.
pub(crate) struct Named<'c> {
    pub(crate) upstream: &'c str,
    pub(crate) provider: &'c str,
    pub(crate) is_private: bool,
    /// The proxy's own.
    pub(crate) call_id: &'c str,
    /// The provider's; empty where it gives none.
    pub(crate) answer_id: &'c str,
}

impl Named<'_> {
    /// Source and id of the call's event.
    pub(crate) fn identity(&self) -> (String, String) {
        let (call, answer) = (self.call_id, self.answer_id);
        // Servers of one's own may count their answers from one at each start.
        if self.is_private {
            let source = format!("spendfuse-proxy:{}", self.upstream);
            return (source, format!("{call}-{answer}"));
        }
        let source = format!("llm:{}", canonical(self.provider));
        let id = if answer.is_empty() { call } else { answer };
        (source, id.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::upstream::Upstream;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../schemas/source-vectors.json")).unwrap()
    }

    /// Provider and address of the upstream that a call goes to; `None` where nobody has said whose it
    /// is, which a proxy is always told.
    fn upstream_of(call: &Value) -> Option<Upstream> {
        let url = call["url"].as_str().unwrap();
        let scheme = url.find("://").unwrap() + 3;
        let origin = &url[..scheme + url[scheme..].find('/').unwrap()];
        let known =
            Upstream::known()
                .into_values()
                .find(|known| match known.base_url.split_once('{') {
                    None => known.base_url == origin,
                    Some((before, rest)) => {
                        let (_, after) = rest.split_once('}').unwrap();
                        origin.starts_with(before) && origin.ends_with(after)
                    }
                });
        let Some(provider) = call["provider"].as_str() else {
            return known;
        };
        let mut upstream = Upstream::known().remove("openai").unwrap();
        upstream.base_url = origin.to_owned();
        upstream.provider = provider.to_owned();
        Some(upstream)
    }

    #[test]
    fn a_call_has_the_source_and_id_that_all_parts_of_spendfuse_give_it() {
        let vectors = vectors();
        let tool = vectors["tools"]["proxy"].as_str().unwrap();
        let mut checked = 0;
        for call in vectors["calls"].as_array().unwrap() {
            let Some(upstream) = upstream_of(call).filter(|_| call["method"] == "POST") else {
                continue;
            };
            let text = |name: &str| call[name].as_str().unwrap();
            let source = text("source").replace("{tool}", tool);
            let named = Named {
                upstream: source.rsplit(':').next().unwrap(),
                provider: &upstream.provider,
                is_private: upstream.is_private(),
                call_id: "c-1",
                answer_id: match text("answer_id") {
                    "" => text("request_id"),
                    id => id,
                },
            };
            let id = text("id").replace("{call}", "c-1");
            assert_eq!(named.identity(), (source.clone(), id), "{call}");
            checked += 1;
        }
        assert!(checked >= 10, "{checked}");
    }

    #[test]
    fn a_provider_has_one_source_whatever_telemetry_calls_it() {
        for (name, source) in vectors()["names"].as_object().unwrap() {
            assert_eq!(*source, format!("llm:{}", canonical(name)), "{name}");
        }
    }
}
