//! Brokers that let nobody in without a certificate or a login: every kind of client gets in, and a
//! wrong setting is told as what it is.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use spendfuse_bus::{KafkaConfig, topics};
use spendfuse_devstack::{Kafka, KafkaOptions, free_port};
use tempfile::TempDir;

use crate::broker::{PATIENCE, eventually, numbers_at, produce_at};
use crate::summer::Stage;

const USER: &str = "alice";
const PASSWORD: &str = "correct-horse";

type Properties = Vec<(&'static str, String)>;

#[test]
fn certificates_and_logins_let_every_client_in_and_wrong_ones_are_told_as_such() {
    let secured = Secured::start();
    Stage::create_topics(&secured.plain, "secured", 1);
    let (tls, sasl) = (secured.tls(), |mechanism| secured.sasl(mechanism, PASSWORD));
    let with = |mut properties: Properties, name, value: &str| {
        properties.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            properties.push((name, value.to_owned()));
        }
        properties
    };

    let endpoint = token_endpoint();
    let oidc = |secret| secured.oidc(&endpoint, secret);
    // A stage has a consumer, a transactional producer, plain readers; the test sends and reads.
    for (properties, numbers) in [
        (sasl("PLAIN"), 1..=10),
        (sasl("SCRAM-SHA-512"), 11..=20),
        (oidc(PASSWORD), 21..=30),
    ] {
        let kafka = secured.at(secured.sasl_port, &properties);
        let partitions = topics::partition_count(&kafka, "secured-in", PATIENCE);
        assert_eq!(partitions.unwrap(), 1);
        produce_at(&kafka, "secured-in", 0, numbers.clone());
        let mut stage = Stage::existing_at(&kafka.brokers, "secured", 1);
        stage.config.kafka = kafka.clone();
        let running = stage.run();
        let last = *numbers.end();
        eventually("the numbers", || {
            numbers_at(&kafka, "secured-out").len() == last as usize
        });
        running.stop().unwrap();
    }
    let mutual = secured.at(secured.tls_port, &tls);
    assert_eq!(numbers_at(&mutual, "secured-out").len(), 30);

    let wrong = [
        (secured.tls_port, Vec::new(), "security.protocol"),
        (
            secured.tls_port,
            with(tls.clone(), "ssl.ca.location", ""),
            "certificate",
        ),
        (
            secured.tls_port,
            with(tls, "ssl.key.location", ""),
            "ertificate",
        ),
        (
            secured.sasl_port,
            secured.sasl("PLAIN", "wrong"),
            "uthentication",
        ),
        (
            secured.sasl_port,
            secured.sasl("SCRAM-SHA-512", "wrong"),
            "uthentication",
        ),
        (secured.sasl_port, oidc("wrong"), "OIDC token"),
        (
            secured.sasl_port,
            with(sasl("PLAIN"), "ssl.ca.location", ""),
            "certificate",
        ),
    ];
    for (port, properties, named) in wrong {
        let kafka = secured.at(port, &properties);
        let asked = topics::partition_count(&kafka, "secured-in", Duration::from_secs(3));
        let error = asked.unwrap_err().to_string();
        println!("{error}");
        assert!(
            error.contains("does not let this client in"),
            "{properties:?}: {error}"
        );
        assert!(error.contains(named), "{properties:?}: {error}");
        assert!(!error.contains(PASSWORD), "{error}");
    }
}

struct Secured {
    folder: TempDir,
    broker: Kafka,
    plain: KafkaConfig,
    tls_port: u16,
    sasl_port: u16,
}

impl Secured {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        write_certificates(folder.path());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (tls_port, sasl_port) = (free_port(None).unwrap(), free_port(None).unwrap());
        let module = "org.apache.kafka.common.security";
        let plain = format!("{module}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";");
        let scram = format!("{module}.scram.ScramLoginModule required;");
        let properties = [
            ("ssl.keystore.type", "PEM".to_owned()),
            ("ssl.keystore.location", file("broker.pem")),
            ("ssl.truststore.type", "PEM".to_owned()),
            ("ssl.truststore.location", file("ca.pem")),
            ("listener.name.ssl.ssl.client.auth", "required".to_owned()),
            (
                "sasl.enabled.mechanisms",
                "PLAIN,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
            ),
            (
                "listener.name.sasl_ssl.oauthbearer.sasl.jaas.config",
                format!("{module}.oauthbearer.OAuthBearerLoginModule required;"),
            ),
            ("listener.name.sasl_ssl.plain.sasl.jaas.config", plain),
            (
                "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config",
                scram,
            ),
            ("group.min.session.timeout.ms", "500".to_owned()),
        ];
        let broker = Kafka::start(KafkaOptions {
            more_listeners: vec![("SSL", tls_port), ("SASL_SSL", sasl_port)],
            properties: properties
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            ..KafkaOptions::default()
        })
        .expect("Kafka starts");
        let added = tool()
            .args(["--bootstrap-server", &broker.brokers(), "--alter"])
            .args(["--entity-type", "users", "--entity-name", USER])
            .args([
                "--add-config",
                &format!("SCRAM-SHA-512=[password={PASSWORD}]"),
            ])
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        let plain = KafkaConfig::new(&broker.brokers(), "test");
        Self {
            folder,
            broker,
            plain,
            tls_port,
            sasl_port,
        }
    }

    fn at(&self, port: u16, properties: &Properties) -> KafkaConfig {
        debug_assert!(self.broker.process_id(0).is_some());
        let mut kafka = KafkaConfig::new(&format!("127.0.0.1:{port}"), "test");
        let properties = properties.iter();
        kafka.properties = properties
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        kafka
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Both sides show a certificate.
    fn tls(&self) -> Properties {
        vec![
            ("security.protocol", "ssl".to_owned()),
            ("ssl.ca.location", self.file("ca.pem")),
            ("ssl.certificate.location", self.file("client.crt")),
            ("ssl.key.location", self.file("client.key")),
        ]
    }

    fn oidc(&self, endpoint: &str, secret: &str) -> Properties {
        vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("ssl.ca.location", self.file("ca.pem")),
            ("sasl.mechanism", "OAUTHBEARER".to_owned()),
            ("sasl.oauthbearer.method", "oidc".to_owned()),
            ("sasl.oauthbearer.token.endpoint.url", endpoint.to_owned()),
            ("sasl.oauthbearer.client.id", USER.to_owned()),
            ("sasl.oauthbearer.client.secret", secret.to_owned()),
        ]
    }

    fn sasl(&self, mechanism: &str, password: &str) -> Properties {
        vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("ssl.ca.location", self.file("ca.pem")),
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", USER.to_owned()),
            ("sasl.password", password.to_owned()),
        ]
    }
}

/// An identity provider's endpoint that gives the client a token for its secret, nobody else.
fn token_endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer_token_request(stream.unwrap());
        }
    });
    endpoint
}

fn answer_token_request(mut stream: TcpStream) {
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let login = lines
        .by_ref()
        .take_while(|line| !line.is_empty())
        .find_map(|line| Some(line.split_once("Authorization: Basic ")?.1.to_owned()));
    let known = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let (status, body) = match login == Some(known) {
        true => (
            "200 OK",
            format!(
                r#"{{"access_token":"{}","token_type":"Bearer","expires_in":3600}}"#,
                unsigned_token()
            ),
        ),
        false => (
            "401 Unauthorized",
            r#"{"error":"invalid_client"}"#.to_owned(),
        ),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    // A client that is gone needs no answer.
    let _ = stream.write_all(answer.as_bytes());
}

/// What Kafka's own validator takes without a list of keys.
fn unsigned_token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (now, part) = (now.as_secs(), |json: &str| {
        BASE64_URL_SAFE_NO_PAD.encode(json)
    });
    let claims = format!(r#"{{"sub":"{USER}","iat":{now},"exp":{}}}"#, now + 3600);
    format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims))
}

fn tool() -> Command {
    Kafka::tool("kafka.admin.ConfigCommand").unwrap()
}

/// A CA of our own, and what it signed for the broker and for a client.
fn write_certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "our own CA");
    write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    let signed = |names: &[&str]| {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap();
        let certificate = certificate.signed_by(&key, &issuer).unwrap();
        (key.serialize_pem(), certificate.pem())
    };
    let (key, certificate) = signed(&["localhost", "127.0.0.1"]);
    write("broker.pem", key + &certificate);
    let (key, certificate) = signed(&["client"]);
    write("client.key", key);
    write("client.crt", certificate);
}
