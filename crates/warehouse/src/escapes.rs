//! Texts as SQL and `TabSeparated` have them.

/// The crate takes `?` for a placeholder.
pub(crate) fn literal(sql: &str) -> String {
    sql.replace('?', "??")
}

/// A text as an SQL literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A value of `TabSeparated` without its escapes.
pub(crate) fn unescaped(value: &str) -> String {
    if value == "\\N" {
        return "NULL".to_owned();
    }
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('0') => text.push('\0'),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_survive_quoting_and_escapes() {
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
        assert_eq!(unescaped(r"a\tb\\n\'"), "a\tb\\n'");
        assert_eq!(unescaped("\\N"), "NULL");
    }
}
