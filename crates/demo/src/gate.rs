//! Whom apps ask before a call: the sidecar over its Unix socket, or a guard in the process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use spendfuse_bus::Shutdown;
use spendfuse_domain::{Attribution, Verdict};
use spendfuse_guard::{CheckRequest, Guard};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::clock;
use crate::error::DemoError;
use crate::event::{Body, DemoEvent, WORKSPACE};
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(5);

/// Whom apps ask.
pub enum Gate {
    /// A guard in this process.
    Guard(Guard),
    /// A sidecar.
    Sidecar(Sidecar),
}

/// A kept-alive connection to a sidecar's socket.
pub struct Sidecar {
    socket: PathBuf,
    runtime: Handle,
    connection: Option<SendRequest<Full<Bytes>>>,
}

#[derive(Deserialize)]
struct Answer {
    decision: String,
    state: String,
}

impl Gate {
    /// The sidecar that listens at `socket`.
    pub fn sidecar(socket: &Path, runtime: &Handle) -> Self {
        Self::Sidecar(Sidecar {
            socket: socket.to_owned(),
            runtime: runtime.clone(),
            connection: None,
        })
    }

    /// Waits until the guard knows everything that the processor has published.
    ///
    /// # Errors
    /// [`DemoError::NotReady`] after `patience`, [`DemoError::Stopped`].
    pub fn wait_until_live(
        &mut self,
        patience: Duration,
        shutdown: &Shutdown,
    ) -> Result<(), DemoError> {
        let Self::Sidecar(sidecar) = self else {
            return Ok(());
        };
        let runtime = sidecar.runtime.clone();
        // Until it listens there is nobody to connect to.
        wait::until_live(patience, shutdown, || {
            let answer = runtime.block_on(sidecar.check("{}".to_owned()));
            answer.is_ok_and(|answer| answer.state == "live")
        })
    }

    /// Whether the call may go ahead.
    ///
    /// # Errors
    /// [`DemoError::Check`] where the sidecar does not answer.
    pub fn lets_through(&mut self, event: &DemoEvent) -> Result<bool, DemoError> {
        let Body::Call(call) = &event.body else {
            return Ok(true);
        };
        match self {
            Self::Guard(guard) => {
                let attribution = Attribution {
                    workspace: WORKSPACE.into(),
                    customer: call.customer.as_str().into(),
                    feature: call.feature.into(),
                    agent: call.agent.into(),
                    plan: call.plan.into(),
                    session: call.session.as_str().into(),
                    model: call.model.name.into(),
                    provider: call.model.provider.into(),
                    ..Attribution::default()
                };
                let request = CheckRequest {
                    attribution,
                    ..CheckRequest::default()
                };
                Ok(guard.check(&request, clock::of_guard().now()).verdict() != Verdict::Block)
            }
            Self::Sidecar(sidecar) => {
                let mut context = json!({
                    "workspace": WORKSPACE,
                    "customer": call.customer,
                    "feature": call.feature,
                    "plan": call.plan,
                    "model": call.model.name,
                    "provider": call.model.provider,
                });
                if !call.session.is_empty() {
                    context["session"] = call.session.as_str().into();
                    context["agent"] = call.agent.into();
                }
                let runtime = sidecar.runtime.clone();
                let answer = runtime
                    .block_on(async {
                        let answer = sidecar.check(context.to_string());
                        timeout(PATIENCE, answer).await
                    })
                    .map_err(|_| DemoError::Check("no answer in time".to_owned()))?;
                Ok(answer.map_err(DemoError::Check)?.decision != "block")
            }
        }
    }
}

impl Sidecar {
    async fn check(&mut self, body: String) -> Result<Answer, String> {
        let mut connection = match self.connection.take() {
            Some(connection) if connection.is_ready() => connection,
            _ => self.connect().await?,
        };
        let request = Request::builder()
            .method(Method::POST)
            .uri("/v1/check")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        // The next request waits until the connection is idle again.
        connection
            .ready()
            .await
            .map_err(|error| error.to_string())?;
        self.connection = Some(connection);
        if status != StatusCode::OK {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", self.socket.display());
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| failed(&error))?;
        let (connection, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
        tokio::spawn(driver);
        Ok(connection)
    }
}
