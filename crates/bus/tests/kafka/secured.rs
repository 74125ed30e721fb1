//! Brokers that let nobody in without a certificate or a login: every kind of client gets in, and a
//! wrong setting is told as what it is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

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

    // A stage has a consumer, a transactional producer, plain readers; the test sends and reads.
    for (mechanism, numbers) in [("PLAIN", 1..=10), ("SCRAM-SHA-512", 11..=20)] {
        let kafka = secured.at(secured.sasl_port, &sasl(mechanism));
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
    assert_eq!(numbers_at(&mutual, "secured-out").len(), 20);

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
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512".to_owned()),
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
