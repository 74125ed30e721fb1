//! Mail: plain text and HTML, to one address, by one server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};

use super::{ChannelError, cut};
use crate::letter::Letter;
use crate::rules::Outcome;
use crate::text::{Words, words};

/// How the connection to a mail server is kept from others' eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// It begins open and is secured by STARTTLS, or nothing is sent.
    StartTls,
    /// Secured from the beginning.
    Tls,
    /// Open: for a server on the same machine.
    None,
}

/// A mail server.
#[derive(Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub security: Security,
    /// User; empty = none is named.
    pub user: String,
    /// Password.
    pub password: String,
    /// Whom mails come from.
    pub from: String,
}

/// Without the password.
impl std::fmt::Debug for Smtp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, .. } = self;
        formatter
            .debug_tuple("Smtp")
            .field(host)
            .field(port)
            .finish()
    }
}

/// A mail server, ready to be used.
pub(super) struct Mail {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// The subject's length, characters.
const MOST_OF_SUBJECT: usize = 200;

impl Mail {
    pub(super) fn new(
        smtp: Smtp,
        ca_file: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, ChannelError> {
        let wrong = |error: String| ChannelError::Mail(error);
        let from = smtp.from.parse().map_err(|error| {
            wrong(format!(
                "notifier.mail_from is no address ({error}); write one such as spendfuse@example.com"
            ))
        })?;
        let tls = match smtp.security {
            Security::None => Tls::None,
            Security::StartTls => Tls::Required(parameters(&smtp.host, ca_file)?),
            Security::Tls => Tls::Wrapper(parameters(&smtp.host, ca_file)?),
        };
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&smtp.host)
            .port(smtp.port)
            .tls(tls)
            .hello_name(ClientId::Domain("spendfuse".to_owned()))
            .timeout(Some(timeout));
        if !smtp.user.is_empty() {
            builder = builder.credentials(Credentials::new(smtp.user, smtp.password));
        }
        Ok(Self {
            transport: builder.build(),
            from,
        })
    }

    pub(super) async fn send(&self, address: &str, letter: &Letter) -> Outcome {
        let message = match self.message(address, letter) {
            Ok(message) => message,
            Err(reason) => return Outcome::Refused { reason },
        };
        match self.transport.send(message).await {
            Ok(_) => Outcome::Delivered,
            Err(error) if error.is_permanent() => Outcome::Refused {
                reason: said(&error),
            },
            Err(error) => Outcome::Later {
                reason: said(&error),
                after: None,
            },
        }
    }

    fn message(&self, address: &str, letter: &Letter) -> Result<Message, String> {
        let words = words(letter);
        let to: Mailbox = address
            .parse()
            .map_err(|error| format!("no mail address: {error}"))?;
        let body = MultiPart::alternative()
            .singlepart(SinglePart::plain(words.plain()))
            .singlepart(
                SinglePart::builder()
                    .header(ContentType::TEXT_HTML)
                    .body(html(&words)),
            );
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(cut(&words.headline, MOST_OF_SUBJECT))
            // The same for each attempt: servers and people recognise a repeat.
            .message_id(Some(format!("<{}@spendfuse>", letter.id)))
            .header(AutoSubmitted)
            .multipart(body)
            .map_err(|error| error.to_string())
    }
}

fn parameters(host: &str, ca_file: Option<&Path>) -> Result<TlsParameters, ChannelError> {
    let mut builder = TlsParameters::builder(host.to_owned());
    if let Some(path) = ca_file {
        let bad = |reason: String| ChannelError::BadCa {
            path: path.to_owned(),
            reason,
        };
        let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
        let certificate = Certificate::from_pem(&pem).map_err(|error| bad(error.to_string()))?;
        builder = builder.add_root_certificate(certificate);
    }
    let built = builder.build_rustls();
    built.map_err(|error| ChannelError::Mail(error.to_string()))
}

fn said(error: &lettre::transport::smtp::Error) -> String {
    let source = std::error::Error::source(error);
    let said = source.map_or_else(|| error.to_string(), ToString::to_string);
    cut(&spendfuse_domain::printable(&said), 200)
}

/// Keeps absence notices from answering.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A page that every mail program shows: tables and inline styles, nothing from elsewhere.
pub(crate) fn html(words: &Words) -> String {
    let colour = match words.headline.split([']', ',']).next().unwrap_or_default() {
        "[critical" => "#b3261e",
        "[over" => "#1e7d32",
        _ => "#8a5a00",
    };
    let mut page = format!(
        "<!doctype html><html><body style=\"margin:0;padding:24px;background:#f4f4f2;font-family:-apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif;color:#1c1c1a\">\
         <table role=\"presentation\" style=\"max-width:640px;width:100%;background:#fff;border-left:6px solid {colour};border-collapse:collapse\"><tr><td style=\"padding:20px 24px\">\
         <p style=\"margin:0 0 16px;font-size:17px;line-height:1.4;font-weight:600\">{}</p>",
        escaped(&words.headline)
    );
    if !words.facts.is_empty() {
        page.push_str("<table role=\"presentation\" style=\"border-collapse:collapse;font-size:14px;line-height:1.5\">");
        for (name, value) in &words.facts {
            page.push_str(&format!(
                "<tr><td style=\"padding:2px 16px 2px 0;color:#6b6b66;vertical-align:top;white-space:nowrap\">{name}</td><td style=\"padding:2px 0;word-break:break-word\">{}</td></tr>",
                escaped(value)
            ));
        }
        page.push_str("</table>");
    }
    for line in &words.lines {
        let line = escaped(line);
        page.push_str(&format!(
            "<p style=\"margin:4px 0;font-size:14px;line-height:1.4\">{line}</p>"
        ));
    }
    for line in words.advice.lines() {
        let line = escaped(line);
        page.push_str(&format!(
            "<p style=\"margin:12px 0 0;font-size:14px;line-height:1.4\">{line}</p>"
        ));
    }
    for note in &words.notes {
        let note = escaped(note);
        page.push_str(&format!(
            "<p style=\"margin:16px 0 0;font-size:12px;color:#6b6b66\">{note}</p>"
        ));
    }
    page.push_str("</td></tr></table></body></html>");
    page
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::json;
    use spendfuse_domain::UnixMillis;

    use super::*;
    use crate::letter::{Passed, What};

    /// docs/mail.png is a picture of this page:
    /// `chromium --headless --screenshot=docs/mail.png --window-size=690,490 crates/notify/tests/pictures/mail.html`.
    #[test]
    fn a_mail_looks_as_in_its_picture() {
        let alert = json!({
            "v": 1, "key": "per-user|acme/user=ada|1795305600000|10000", "kind": "budget_step",
            "severity": "critical", "scope": "acme/user=ada", "subject": "per-user",
            "message": "acme/user=ada reached 100 % of budget per-user in day:2026-11-22: $5.01 of $5.00 spent; calls are refused",
            "at": "2026-11-22T10:15:31.320Z", "budget": "per-user", "step": 100, "action": "block",
            "window": "day:2026-11-22", "window_start": "2026-11-22T00:00:00Z",
            "ends_at": "2026-11-23T00:00:00Z", "spent_usd": "5.01", "limit_usd": "5.00",
            "rate_hour_usd": "2.40", "rate_5m_usd": "9.60",
            "caused_by": {"source": "sidecar", "id": "chatcmpl-9y", "time": "2026-11-22T10:15:30Z"},
        });
        let letter = Letter {
            id: "8f2b6c1d0e9a7743".to_owned(),
            what: What::New,
            route: "budget per-user".to_owned(),
            to: "mailto:ops@example.com".to_owned(),
            alerts: vec![serde_json::from_value(alert).unwrap()],
            over: BTreeSet::new(),
            passed: vec![Passed {
                to: "hook-a".to_owned(),
                reason: "503 Service Unavailable".to_owned(),
            }],
            created_at: UnixMillis(1_795_342_531_400),
        };
        let page = html(&words(&letter));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/mail.html");
        let shown = fs::read_to_string(&file).unwrap_or_default();
        if page != shown.trim_end() {
            let now = file.with_extension("now.html");
            fs::write(&now, page).unwrap();
            panic!(
                "{} differs from {}: look at it, and take a new picture",
                now.display(),
                file.display()
            );
        }
    }
}
