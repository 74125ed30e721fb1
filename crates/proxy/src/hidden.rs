//! Calls whose answers would not say what they have used.

use axum::http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;

use crate::route::Call;

/// How a call of Google's asks for an answer that does not say what it has used; `None` where it does
/// not: its servers leave out what a mask of fields does not name.
pub(crate) fn hides_usage(call: Call, uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    let usage = match call {
        Call::Generate { .. } => "usageMetadata",
        Call::Interactions => "usage",
        Call::Imagen => "predictions",
        _ => return None,
    };
    hides(uri, headers, |mask| {
        mask.split(',')
            .any(|one| ["*", usage].contains(&one.trim()))
    })
}

/// The same of a batch of Google's, which has its answers in it: of those a mask names all or none.
pub(crate) fn hides_batch(uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    const DATED: [&str; 3] = ["*", "metadata", "operations"];
    hides(uri, headers, |mask| {
        let mask = mask.to_ascii_lowercase();
        let all: Vec<&str> = mask.split(',').map(str::trim).collect();
        // Without the time at which they were there they would be others each time.
        let is_dated = all.iter().any(|one| DATED.contains(one));
        all.iter().all(|one| {
            let is_of_answers = ["response", "output"].iter().any(|name| one.contains(name));
            let is_whole = DATED.contains(one) || is_dated && *one == "response";
            is_whole || !is_of_answers && !one.contains(['(', '*'])
        })
    })
}

/// How a request asks for an answer by a mask that does not show what is wanted, or for another form of
/// it than text.
fn hides(uri: &Uri, headers: &HeaderMap, shows: impl Fn(&str) -> bool) -> Option<&'static str> {
    const HEADER: &str = "x-goog-fieldmask";
    // Google's own clients write `json;enum-encoding=int`.
    let is_text = |form: &str| ["json", "sse"].contains(&form);
    let mut masks = headers.get_all(HEADER).iter();
    if masks.any(|mask| !mask.to_str().is_ok_and(&shows)) {
        return Some(HEADER);
    }
    uri.query()?.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy();
        let value = decoded(value);
        match decoded(name).trim_start_matches('$') {
            "fields" if !shows(&value) => Some("fields"),
            // Puts a call of a script around it.
            "callback" => Some("callback"),
            "alt" if !value.split(';').next().is_some_and(is_text) => Some("alt"),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Shape;

    #[test]
    fn answers_that_leave_their_usage_out_are_known() {
        let hidden = |query: &str, mask: Option<&'static str>| {
            let uri = format!("https://x/v1beta/models/m:generateContent{query}");
            let mut headers = HeaderMap::new();
            if let Some(mask) = mask {
                headers.insert(
                    "x-goog-fieldmask",
                    axum::http::HeaderValue::from_static(mask),
                );
            }
            let call = Call::of(Shape::Gemini, "/v1beta/models/m:generateContent");
            hides_usage(call.unwrap(), &uri.parse().unwrap(), &headers)
        };
        for (query, mask, wanted) in [
            ("", None, None),
            ("?alt=sse&key=k", None, None),
            ("?%24alt=json%3Benum-encoding%3Dint", None, None),
            ("?fields=candidates,usageMetadata", Some("*"), None),
            ("?fields=candidates", None, Some("fields")),
            (
                "?%24f%69elds=candidates(content%2CusageMetadata)",
                None,
                Some("fields"),
            ),
            ("?alt=proto", None, Some("alt")),
            ("?%24callback=f", None, Some("callback")),
            ("", Some("candidates"), Some("x-goog-fieldmask")),
        ] {
            assert_eq!(hidden(query, mask), wanted, "{query}");
        }
        let of_interaction = |query: &str| {
            let uri = format!("https://x/v1beta/interactions{query}");
            hides_usage(Call::Interactions, &uri.parse().unwrap(), &HeaderMap::new())
        };
        assert_eq!(of_interaction("?fields=id,usage"), None);
        assert_eq!(of_interaction("?fields=id,outputs"), Some("fields"));
    }

    #[test]
    fn a_batch_is_read_with_all_of_its_answers_or_with_none() {
        let hidden = |query: &str| {
            let uri = format!("https://x/v1beta/batches/b{query}");
            hides_batch(&uri.parse().unwrap(), &HeaderMap::new())
        };
        for (query, wanted) in [
            ("", None),
            ("?alt=json", None),
            ("?fields=name,done,metadata.state", None),
            ("?fields=metadata,response", None),
            ("?fields=*", None),
            ("?fields=response", Some("fields")),
            ("?fields=response,name", Some("fields")),
            ("?callback=f", Some("callback")),
            (
                "?fields=response.inlinedResponses.inlinedResponses.response.candidates",
                Some("fields"),
            ),
            ("?fields=metadata/output", Some("fields")),
            ("?fields=metadata(output)", Some("fields")),
            ("?alt=proto", Some("alt")),
        ] {
            assert_eq!(hidden(query), wanted, "{query}");
        }
    }
}
