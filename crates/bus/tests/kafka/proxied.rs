//! A broker that clients reach through a proxy only.

use spendfuse_bus::KafkaConfig;
use spendfuse_devstack::{Kafka, KafkaOptions};
use spendfuse_testkit::proxy::{Protocol, Proxy};
use tokio::runtime::Runtime;

/// A broker of its own, and what is between it and its clients.
pub struct Proxied {
    pub proxy: Proxy,
    broker: Kafka,
    runtime: Runtime,
}

impl Proxied {
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let proxy = Proxy::listen(runtime.handle(), Protocol::Kafka, None).unwrap();
        let broker = Kafka::start(KafkaOptions {
            properties: vec![("group.min.session.timeout.ms".into(), "500".into())],
            detours: vec![proxy.port()],
            ..KafkaOptions::default()
        })
        .expect("Kafka starts; `make setup` fetches it");
        proxy.forward_to(broker.detour_port(0));
        Self {
            proxy,
            broker,
            runtime,
        }
    }

    /// Through the proxy.
    pub fn kafka(&self) -> KafkaConfig {
        KafkaConfig::new(&self.broker.detour_brokers(), "test")
    }

    /// The network is away: connections end, and are refused until the proxy is back.
    pub fn without_proxy(&mut self, meanwhile: impl FnOnce()) {
        let port = self.proxy.port();
        let listen_at = |port| {
            let runtime = self.runtime.handle();
            Proxy::listen_at(port, runtime, Protocol::Kafka, None).unwrap()
        };
        self.proxy = listen_at(0);
        meanwhile();
        self.proxy = listen_at(port);
        self.proxy.forward_to(self.broker.detour_port(0));
    }

    /// Past the proxy.
    pub fn direct(&self) -> KafkaConfig {
        KafkaConfig::new(&self.broker.brokers(), "test")
    }
}
