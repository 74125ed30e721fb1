//! Text from outside, as it may reach a person's terminal.
//!
//! Names, messages and ids come from whoever sends events. Printed as they are, they could move the
//! cursor, change colours, forge lines or turn text around, so that a screen says what nobody wrote.

use std::borrow::Cow;

/// `text` with everything that a terminal obeys, or that makes text look like another one, written
/// out: `\u{1b}`, `\n`, `\u{202e}`.
///
/// ```
/// use spendfuse_domain::printable;
/// assert_eq!(printable("c-42"), "c-42");
/// assert_eq!(printable("\u{1b}[31mred\n"), "\\u{1b}[31mred\\n");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut written = String::with_capacity(text.len() + 8);
    for one in text.chars() {
        if is_obeyed(one) {
            written.extend(one.escape_default());
        } else {
            written.push(one);
        }
    }
    Cow::Owned(written)
}

/// Control characters (C0, DEL, C1), line and paragraph separators, characters that set the
/// direction of text, and those that nobody sees (Unicode's "default ignorable" ones that are no
/// part of a script's spelling).
pub fn is_obeyed(one: char) -> bool {
    one.is_control()
        || matches!(one,
            '\u{061c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_people_and_models_stay_as_they_are() {
        for text in ["c-42", "Zoë", "客户", "کاربر‌ها", "👩‍💻", "a b"] {
            assert_eq!(printable(text), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_that_a_terminal_obeys_is_left(text in any::<String>()) {
            let written = printable(&text);
            prop_assert!(!written.contains(is_obeyed));
            let plain: String = text.chars().filter(|one| !is_obeyed(*one)).collect();
            prop_assert_eq!(text == plain, written == text);
        }
    }
}
