//! Real sockets: TCP and Unix, stale socket files, an orderly stop.

use std::io;
use std::time::Duration;

use crate::support::{bench, config};
use spendfuse_sidecar::{Listeners, SidecarConfig, SidecarError, Token, serve};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::oneshot;

async fn ask(mut stream: impl io_stream::Stream) -> String {
    let question =
        "GET /v1/state?customer=c HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(question.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap().to_owned()
}

mod io_stream {
    pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin {}
    impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Stream for T {}
}

#[tokio::test]
async fn both_sockets_answer_until_the_stop_and_the_token_is_for_tcp() -> io::Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("sidecar.sock");
    // A sidecar that was killed leaves its socket behind.
    drop(UnixListener::bind(&path)?);
    let config = SidecarConfig {
        unix_socket: Some(path.clone()),
        token: Token::new("s3cret"),
        ..config()
    };
    let bench = bench(config.clone(), None);
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.tcp_address().unwrap().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(bench.sidecar, listeners, async {
        let _ = stopped.await;
    }));
    let over_tcp = ask(TcpStream::connect(address).await?).await;
    assert!(over_tcp.contains("401"), "{over_tcp}");
    let over_unix = ask(UnixStream::connect(&path).await?).await;
    assert!(over_unix.contains("200"), "{over_unix}");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(!path.exists());
    assert!(TcpStream::connect(address).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_socket_that_somebody_listens_to_is_left_alone() -> io::Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("sidecar.sock");
    let config = SidecarConfig {
        listen: None,
        unix_socket: Some(path.clone()),
        ..config()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let first = Listeners::bind(&config).await.unwrap();
    let refused = Listeners::bind(&config).await.err().unwrap();
    assert!(matches!(refused, SidecarError::Listen { .. }), "{refused}");
    let sidecar = bench(config.clone(), None).sidecar;
    let serving = tokio::spawn(serve(sidecar, first, async {
        let _ = stopped.await;
    }));
    assert!(ask(UnixStream::connect(&path).await?).await.contains("200"));
    // Somebody takes the path away, and a second sidecar has it when the first one stops.
    std::fs::remove_file(&path)?;
    let second = Listeners::bind(&config).await.unwrap();
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    let sidecar = bench(config, None).sidecar;
    tokio::spawn(serve(sidecar, second, std::future::pending()));
    assert!(ask(UnixStream::connect(&path).await?).await.contains("200"));
    Ok(())
}

#[tokio::test]
async fn who_stops_gives_its_path_away_before_its_last_requests_have_ended() -> io::Result<()> {
    let directory = TempDir::new()?;
    let path = directory.path().join("sidecar.sock");
    let config = SidecarConfig {
        listen: None,
        unix_socket: Some(path.clone()),
        ..config()
    };
    let first = Listeners::bind(&config).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let sidecar = bench(config.clone(), None).sidecar;
    let serving = tokio::spawn(serve(sidecar, first, async {
        let _ = stopped.await;
    }));
    let mut slow = UnixStream::connect(&path).await?;
    let half = b"POST /v1/usage HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n{";
    slow.write_all(half).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    let is_given_away = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), is_given_away)
        .await
        .unwrap();
    let second = Listeners::bind(&config).await.unwrap();
    drop(slow);
    serving.await.unwrap().unwrap();
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
    Ok(())
}

#[tokio::test]
async fn a_file_at_the_sockets_path_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "mine").unwrap();
    let config = SidecarConfig {
        unix_socket: Some(path.clone()),
        ..config()
    };
    let refused = Listeners::bind(&config).await.err().unwrap();
    assert!(matches!(refused, SidecarError::NotASocket { .. }));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn without_a_tcp_address_only_the_socket_answers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("sidecar.sock");
    let nowhere = SidecarConfig {
        listen: None,
        ..config()
    };
    let refused = nowhere.validate().unwrap_err();
    assert!(matches!(refused, SidecarError::NoAddress));
    let config = SidecarConfig {
        unix_socket: Some(path.clone()),
        ..nowhere
    };
    let listeners = Listeners::bind(&config).await.unwrap();
    assert_eq!(listeners.tcp_address().unwrap(), None);
    let sidecar = bench(config, None).sidecar;
    tokio::spawn(serve(sidecar, listeners, std::future::pending()));
    let answer = ask(UnixStream::connect(&path).await.unwrap()).await;
    assert!(answer.contains("200"), "{answer}");
}
