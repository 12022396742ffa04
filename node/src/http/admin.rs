//! The admin socket: a Unix domain socket in the data directory, which only the user that the node runs as (and root) can open.
//! It serves the same routes as the other doors; whoever comes in by it is an administrator, by the kernel's word.
//!
//! It has connections of its own: it lets in when the network's doors are full.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixListener as StdListener},
    path::Path,
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use actix_http::HttpService;
use actix_service::{IntoServiceFactory as _, Service as _, ServiceFactory as _, map_config};
use actix_web::{HttpRequest, dev::AppConfig};
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use tidegate_actors::limits;
use tokio::net::{UnixListener, UnixStream};

use super::{
    app,
    listener::NO_ROOM,
    socket::{Socket, Ticket, Tie},
};
use crate::{
    edge::EdgeLoop,
    transport::{admission::Limit, stream::Stream},
};

/// The socket's name in the data directory.
pub(crate) const FILE: &str = "admin.sock";
/// Connections that the kernel keeps for the accepting loop.
const BACKLOG: i32 = 16;

/// Who is at the other end, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pid: Option<i32>,
}

impl Peer {
    /// Where it comes from, as the audit log says it.
    pub(crate) fn address(self) -> String {
        match self.pid {
            Some(pid) => format!("{FILE} pid {pid}"),
            None => FILE.to_owned(),
        }
    }
}

/// Who is at the other end of a request's connection, if it came by the admin socket.
pub(crate) fn peer(request: &HttpRequest) -> Option<Peer> {
    request.conn_data::<Rc<Tie>>()?.admin()
}

/// The listening socket, until a loop takes it.
pub(crate) struct Door(Mutex<Option<StdListener>>);

impl Door {
    /// Opens it. This node has the directory, so a socket that is there is left over from one that was killed. A node without this
    /// door is better than none: why it has none is told.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let listener = listen(&path).inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "no admin socket: commands need the node's address (and a token, where there are users)");
        });
        Self(Mutex::new(listener.ok()))
    }

    fn take(&self) -> Option<StdListener> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Nobody listens any more.
pub(crate) fn remove(data_dir: &Path) {
    // What stays is removed by the next start.
    let _ = fs::remove_file(data_dir.join(FILE));
}

fn listen(path: &Path) -> io::Result<StdListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let address = SockAddr::unix(path).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is longer than a socket's may be (107 bytes); a shorter data.dir helps",
        )
    })?;
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&address)?;
    // Nobody can connect before it listens.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the edge stops. Runs as a task of one loop.
pub(crate) async fn accept(edge: Rc<EdgeLoop>) {
    let Some(listener) = edge.shared.admin.take() else { return };
    let listener = match UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "cannot accept on the admin socket");
            return;
        }
    };
    let factory = HttpService::build()
        .client_request_timeout(edge.shared.settings.http_header_timeout)
        .client_disconnect_timeout(Duration::from_secs(5))
        .keep_alive(Duration::from_secs(75))
        .on_connect_ext(|socket: &Socket, data| drop(data.insert(Rc::clone(socket.tie()))))
        .h1(map_config(app::app(), |()| AppConfig::default()).into_factory());
    let service = match factory.new_service(()).await {
        Ok(service) => Rc::new(service),
        Err(error) => {
            tracing::error!(?error, "cannot serve HTTP on the admin socket");
            return;
        }
    };
    let places = Rc::new(());
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin socket; waiting 100 ms (is the file descriptor limit reached?)");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(peer) = identify(&stream) else { continue };
        if Rc::strong_count(&places) > limits::ADMIN_CONNECTIONS {
            edge.shared.admission.turn_away(Limit::AdminConnections);
            if let Some(left_out) = edge.hush.turned_away.may_say(edge.uptime_ms()) {
                tracing::warn!(left_out, "turned away from the admin socket (limit admin_connections)");
            }
            // As much as goes out at once.
            let _ = stream.try_write(NO_ROOM);
            continue;
        }
        let service = Rc::clone(&service);
        let socket = Socket::new(Stream::Unix(stream), Ticket::Admin(peer, Rc::clone(&places)), None);
        actix_rt::spawn(async move {
            if let Err(error) = service.call((socket, None)).await {
                tracing::debug!(?error, "a connection of the admin socket ended early");
            }
        });
    }
}

/// Who it is. The file's mode keeps others out; should somebody have changed that, this does.
fn identify(stream: &UnixStream) -> Option<Peer> {
    let credentials = stream.peer_cred().ok()?;
    let (uid, own) = (credentials.uid(), rustix::process::geteuid().as_raw());
    if uid != own && uid != 0 {
        tracing::warn!(uid, "refused a connection to the admin socket: it is for the user that the node runs as");
        return None;
    }
    Some(Peer { uid, pid: credentials.pid() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_its_owners_alone_and_takes_the_place_of_one_that_was_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        for _ in 0..2 {
            let listener = listen(&path).expect("it listens");
            assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
            drop(listener);
        }
        let long = dir.path().join("x".repeat(120));
        let error = listen(&long).expect_err("too long").to_string();
        assert!(error.contains("107 bytes"), "{error}");
    }
}
