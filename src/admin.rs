//! The admin port: `/metrics` in the OpenMetrics text format, `/healthz` (is the process well?), `/readyz` (is it serving?).
//!
//! Read-only, small answers, no state of its own: what it says it asks [`Health`] and [`Metrics`] for at each request.

use std::future::Future;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::metrics::Metrics;
use crate::net::BoxFuture;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is asked of the broker at each request; nothing of it may block. An error is the reason, for people.
pub trait Health: Send + Sync + 'static {
    /// Whether the process is well; if not, restarting it is the remedy.
    ///
    /// # Errors
    /// Why it is not.
    fn healthy(&self) -> Result<(), String>;

    /// Whether clients are served: every local partition has a leader or is known to be offline, and the broker is not stopping.
    ///
    /// # Errors
    /// Why they are not.
    fn ready(&self) -> Result<(), String>;

    /// Brings those metrics up to date that are counted only when somebody looks.
    fn count(&self) -> BoxFuture<'_, ()>;
}

#[derive(Clone)]
struct Admin {
    metrics: Arc<Metrics>,
    health: Arc<dyn Health>,
}

/// Serves until `stop` completes; requests under way are answered first.
///
/// # Errors
/// The operating system's, if the listener fails for good.
pub async fn serve<L>(
    listener: L,
    metrics: Arc<Metrics>,
    health: Arc<dyn Health>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_healthy))
        .route("/readyz", get(show_ready))
        .with_state(Admin { metrics, health });
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn show_metrics(State(admin): State<Admin>) -> Response {
    admin.health.count().await;
    ([(header::CONTENT_TYPE, OPENMETRICS)], admin.metrics.encode()).into_response()
}

async fn show_healthy(State(admin): State<Admin>) -> Response {
    probe(admin.health.healthy())
}

async fn show_ready(State(admin): State<Admin>) -> Response {
    probe(admin.health.ready())
}

fn probe(outcome: Result<(), String>) -> Response {
    match outcome {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Switch(AtomicBool);

    impl Health for Switch {
        fn healthy(&self) -> Result<(), String> {
            Ok(())
        }

        fn ready(&self) -> Result<(), String> {
            if self.0.load(Relaxed) { Ok(()) } else { Err("2 partitions have no leader".into()) }
        }

        fn count(&self) -> BoxFuture<'_, ()> {
            Box::pin(async {})
        }
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("the admin port accepts");
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the answer is read to its end");
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_are_answered_until_the_stop() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let switch = Arc::new(Switch::default());
        let metrics = Arc::new(Metrics::new(&[], &[]));
        let health: Arc<dyn Health> = Arc::<Switch>::clone(&switch);
        let served = serve(listener, metrics, health, async {
            let _ = stopped.await;
        });
        let asked = async {
            assert!(ask(address, "/healthz").await.ends_with("\r\n\r\nok\n"));
            let answer = ask(address, "/readyz").await;
            assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
            assert!(answer.ends_with("2 partitions have no leader\n"), "{answer}");
            switch.0.store(true, Relaxed);
            assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
            let answer = ask(address, "/metrics").await;
            assert!(answer.contains(OPENMETRICS) && answer.ends_with("# EOF\n"), "{answer}");
            assert!(ask(address, "/").await.starts_with("HTTP/1.1 404"));
            stop.send(()).expect("the server still listens");
        };
        let (served, ()) = tokio::join!(served, asked);
        served.expect("a stop is no error");
    }
}
