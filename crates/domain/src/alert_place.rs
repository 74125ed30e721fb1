//! Where alerts go: the name of a channel that the notifier's settings define, or a mail address.

/// One place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertPlace<'a> {
    /// A channel, by its name in the settings.
    Channel(&'a str),
    /// A mail address: `mailto:ops@example.com`.
    Mail(&'a str),
}

impl<'a> AlertPlace<'a> {
    /// Reads a place; `None` where the text is neither.
    ///
    /// ```
    /// use spendfuse_domain::AlertPlace;
    /// assert_eq!(AlertPlace::parse("slack-ops"), Some(AlertPlace::Channel("slack-ops")));
    /// assert_eq!(AlertPlace::parse("mailto:a@b.org"), Some(AlertPlace::Mail("a@b.org")));
    /// assert_eq!(AlertPlace::parse("https://example.com/hook"), None);
    /// ```
    pub fn parse(text: &'a str) -> Option<Self> {
        match text.strip_prefix("mailto:") {
            Some(address) => is_address(address).then_some(Self::Mail(address)),
            None => is_name(text).then_some(Self::Channel(text)),
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-')
}

/// Whether it may be an address: what a mail server thinks of it is its own business, but nothing
/// that ends a header or adds a recipient may get that far.
fn is_address(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"<>()[],;:\\\"?&".contains(&byte);
    let Some((name, host)) = text.split_once('@') else {
        return false;
    };
    !name.is_empty()
        && host.contains('.')
        && !host.contains('@')
        && text.len() <= 254
        && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_a_place() {
        for bad in [
            "",
            "-a",
            "Slack",
            "a b",
            "mailto:",
            "mailto:ops",
            "mailto:@b.org",
            "mailto:a@b@c.org",
            "mailto:a@b.org,c@d.org",
            "mailto:a@b.org\r\nBcc: c@d.org",
            "mailto:a@b.org?cc=c@d.org",
        ] {
            assert_eq!(AlertPlace::parse(bad), None, "{bad}");
        }
    }
}
