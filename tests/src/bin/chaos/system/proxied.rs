//! The proxy among the parts.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use spendfuse_tests::traffic::PROVIDER;

use super::{PROXY, ROLE_NAMES, System};
use crate::proxied::{WORKSPACE, is_answering, is_sent, named_in};

/// How long a proxy may take to start.
const START_PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(200);

impl System {
    /// Two upstreams are one provider, whose prices are those of all other calls.
    pub(super) fn proxy_settings(&self) -> Vec<(&'static str, String)> {
        let provider = self.provider.base_url();
        vec![
            ("proxy.listen", "127.0.0.1:0".to_owned()),
            ("proxy.spool_dir", self.proxy_spool().display().to_string()),
            // Nothing else has a price here.
            ("proxy.downgrade", "ignore".to_owned()),
            ("proxy.upstreams.openai.base_url", provider.clone()),
            ("proxy.upstreams.openai.provider", PROVIDER.to_owned()),
            ("proxy.upstreams.anthropic.base_url", provider),
            ("proxy.upstreams.anthropic.provider", PROVIDER.to_owned()),
            ("sidecar.default_workspace", WORKSPACE.to_owned()),
        ]
    }

    /// The folder of the proxy's spool.
    pub(super) fn proxy_spool(&self) -> PathBuf {
        self.options.folder.join("proxy-spool")
    }

    /// The proxy's log.
    pub fn proxy_log(&self) -> PathBuf {
        let name = ROLE_NAMES[PROXY];
        self.options.folder.join(format!("{name}.log"))
    }

    /// Waits until the proxy answers, and has sent what lay in its spool: it has named then what the one
    /// before has left open, and what of it was safe all the same is in the log. One that does not get
    /// there shows as calls that nobody names or counts.
    pub fn await_proxy(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        let (log, spool) = (self.proxy_log(), self.proxy_spool());
        let is_done = || is_answering(&log) && is_sent(&spool);
        while !is_done() && Instant::now() < deadline {
            self.wait_until(Instant::now() + BETWEEN)?;
        }
        Ok(())
    }

    /// Calls that a proxy has named as left open by the one before.
    pub fn named_by_proxy(&self) -> BTreeSet<usize> {
        let lines = self.actors[PROXY].lines_with("was under way when the proxy was killed");
        named_in(&lines)
    }
}
