//! A server for the tests of the loads: answers whatever a function says, on one thread a connection.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Serves every connection with `answer`, which is given the bytes that are not yet used and returns how many it used
/// and what to send, or `None` to close the connection. The threads end with the test's process.
pub(super) fn serve(answer: impl Fn(&[u8]) -> Option<(usize, Vec<u8>)> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || converse(stream, answer.as_ref()));
        }
    });
    address
}

fn converse(mut stream: TcpStream, answer: &(impl Fn(&[u8]) -> Option<(usize, Vec<u8>)> + ?Sized)) {
    let mut unused = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        unused.extend_from_slice(&chunk[..read]);
        let Some((used, reply)) = answer(&unused) else { return };
        unused.drain(..used);
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}
