//! Whether what was printed is what a page says.
//!
//! `…` on the page stands for anything, line ends included. Dates and times differ every day, and
//! blanks outside quotes depend on how an answer was broken into lines: neither is compared.

/// `None` where `printed` is what the page says, else both.
pub fn difference(page: &str, printed: &str) -> Option<String> {
    let (wanted, found) = (comparable(page), comparable(printed));
    if matches(&wanted, &found) {
        return None;
    }
    Some(format!("the page says:\n{page}\nprinted was:\n{printed}"))
}

fn matches(wanted: &str, found: &str) -> bool {
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = found.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(place) = rest.find(part) else {
            return false;
        };
        rest = &rest[place + part.len()..];
    }
    rest.ends_with(last)
}

/// The text with one form for every date and time, and without blanks outside quotes.
fn comparable(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut result = String::with_capacity(text.len());
    let mut is_quoted = false;
    let mut place = 0;
    while place < characters.len() {
        let length = date_length(&characters[place..]);
        if length > 0 {
            result.push_str("DATE");
            place += length;
            continue;
        }
        let one = characters[place];
        is_quoted ^= one == '"';
        if is_quoted || !one.is_whitespace() {
            result.push(one);
        }
        place += 1;
    }
    result
}

/// How many characters a date, or a date with its time, takes at the beginning of `text`.
fn date_length(text: &[char]) -> usize {
    let has_form = |text: &[char], form: &str| {
        text.len() >= form.len()
            && form.chars().zip(text).all(|(form, one)| match form {
                '0' => one.is_ascii_digit(),
                other => *one == other,
            })
    };
    if !has_form(text, "0000-00-00") {
        return 0;
    }
    if !has_form(text, "0000-00-00T00:00:00") {
        return 10;
    }
    let is_time = |one: &&char| one.is_ascii_digit() || **one == '.' || **one == 'Z';
    19 + text[19..].iter().take_while(is_time).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_line_breaks_and_what_is_left_out_are_not_compared() {
        let page = "{\"a\": \"x y\",\n \"at\":\"2026-11-22T10:00:00Z\", …}\n";
        let printed = "{\"a\":\"x y\",\"at\":\"2026-11-28T03:10:50.080Z\",\"b\":1}";
        assert_eq!(difference(page, printed), None);
        for other in [
            printed.replace("x y", "xy"),
            printed.replace("\"a\"", "\"A\""),
            format!("{printed}!"),
        ] {
            assert!(difference(page, &other).is_some(), "{other}");
        }
    }

    #[test]
    fn a_page_without_dots_is_compared_to_the_end() {
        assert_eq!(difference("applied\n", "applied\n"), None);
        assert!(difference("applied\n", "applied\nand more\n").is_some());
        assert!(difference("…\napplied\n", "not\n").is_some());
    }
}
