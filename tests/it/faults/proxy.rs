//! A TCP proxy before a server's Unix socket, which reads what passes and breaks it off at a moment of one's choice.
//!
//! It knows of each connection how far its transaction is, going by the messages of the protocol: so a fault falls
//! where it is meant to fall, and a histogram can be made of where faults fell.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::unix;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// How far a connection's transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// No transaction is open.
    Between,
    /// One is, which has written nothing.
    Looking,
    /// It has written, and COMMIT was not sent.
    Writing,
    /// COMMIT was sent, and is not answered.
    Committing,
}

pub const PHASES: [Phase; 4] = [Phase::Between, Phase::Looking, Phase::Writing, Phase::Committing];

/// What happens at the chosen message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is lost, and the connection with it.
    Cut,
    /// It arrives; the connection is lost before the answer.
    CutAnswer,
    /// Half of it arrives, then the end of the stream. What the server has to say still passes.
    HalfClose,
    /// It arrives, and [`Proxy::sprung`] says so.
    Tell,
    /// It arrives late.
    Delay(Duration),
    /// It is kept back until the connection ends, and [`Proxy::sprung`] says so: time to kill one of the ends.
    Hold,
    /// It arrives, and nothing after it; [`Proxy::sprung`] says so.
    HoldNext,
}

/// A fault, and when it happens: at the so-many-eth message of the client in a phase, or after so many bytes from
/// either side.
#[derive(Clone, Copy, Debug)]
pub enum Trap {
    Message { phase: Phase, nth: u64, fault: Fault },
    Bytes { from_client: bool, nth: u64 },
}

#[derive(Default)]
struct Shared {
    traps: Mutex<Vec<Trap>>,
    hit: Mutex<Vec<Phase>>,
    /// Messages of clients, by phase, since traps were set.
    messages: [AtomicU64; 4],
    /// Bytes from servers and from clients, since traps were set.
    bytes: [AtomicU64; 2],
    /// Transactions begun by clients, since traps were set.
    transactions: AtomicU64,
    sprung: Notify,
    released: Notify,
}

/// The proxy. Its connections end with it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Before the server or pooler with this socket.
    pub async fn start(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, socket.clone(), accepting.clone()));
            }
        });
        Proxy { port, shared, task }
    }

    /// The URL of a database behind it.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Sets traps, and counts anew.
    pub fn set(&self, traps: Vec<Trap>) {
        let shared = &self.shared;
        let counts = shared.messages.iter().chain(&shared.bytes).chain([&shared.transactions]);
        counts.for_each(|count| count.store(0, Ordering::SeqCst));
        lock(&self.shared.hit).clear();
        *lock(&self.shared.traps) = traps;
    }

    /// Resolves when a trap that holds has sprung.
    pub async fn sprung(&self) {
        self.shared.sprung.notified().await;
    }

    /// Ends the connections that are held.
    pub fn release(&self) {
        self.shared.released.notify_waiters();
    }

    /// The phases that traps fell in, but for delays.
    pub fn hit(&self) -> Vec<Phase> {
        lock(&self.shared.hit).clone()
    }

    /// Messages of clients in a phase since traps were set.
    pub fn messages(&self, phase: Phase) -> u64 {
        self.shared.messages[phase as usize].load(Ordering::SeqCst)
    }

    /// Transactions begun since traps were set.
    pub fn transactions(&self) -> u64 {
        self.shared.transactions.load(Ordering::SeqCst)
    }

    /// Bytes from servers or clients since traps were set.
    pub fn bytes(&self, from_client: bool) -> u64 {
        self.shared.bytes[usize::from(from_client)].load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Counts a message; gives the fault that happens at it.
    fn message(&self, phase: Phase) -> Option<Fault> {
        let count = self.messages[phase as usize].fetch_add(1, Ordering::SeqCst) + 1;
        let is_now =
            |trap: &Trap| matches!(trap, Trap::Message { phase: p, nth, .. } if *p == phase && *nth == count);
        let mut traps = lock(&self.traps);
        let at = traps.iter().position(is_now)?;
        let Trap::Message { fault, .. } = traps.remove(at) else { return None };
        if !matches!(fault, Fault::Delay(_)) {
            lock(&self.hit).push(phase);
        }
        Some(fault)
    }

    /// Counts bytes; gives how many of them pass before the cut.
    fn bytes(&self, of_client: bool, more: usize, phase: Phase) -> Option<usize> {
        let before = self.bytes[usize::from(of_client)].fetch_add(more as u64, Ordering::SeqCst);
        let after = before + more as u64;
        let is_now = |trap: &Trap| matches!(trap, Trap::Bytes { from_client, nth } if *from_client == of_client && *nth <= after);
        let mut traps = lock(&self.traps);
        let at = traps.iter().position(is_now)?;
        let Trap::Bytes { nth, .. } = traps.remove(at) else { return None };
        lock(&self.hit).push(phase);
        Some(nth.saturating_sub(before) as usize)
    }
}

/// One connection, to its end.
async fn pass(client: TcpStream, socket: PathBuf, shared: Arc<Shared>) {
    let Ok(server) = UnixStream::connect(socket).await else { return };
    let _ = client.set_nodelay(true);
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let phase = Arc::new(Mutex::new(Phase::Between));
    let up = upwards(client_in, server_out, shared.clone(), phase.clone());
    let down = downwards(server_in, client_out, shared, phase);
    // The first that ends ends both, but for a half-close.
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => if let Ok(End::Half) = ended { let _ = down.await; },
        _ = &mut down => {}
    }
}

/// How a direction ended.
enum End {
    Closed,
    /// The other one goes on.
    Half,
}

async fn upwards(
    mut client: OwnedReadHalf,
    mut server: unix::OwnedWriteHalf,
    shared: Arc<Shared>,
    phase: Arc<Mutex<Phase>>,
) -> io::Result<End> {
    let mut messages = Messages { has_tag: false, ..Messages::default() };
    while let Some(message) = messages.next(&mut client).await? {
        let before = std::mem::replace(&mut *lock(&phase), Phase::Between);
        let after = entered(before, &message);
        *lock(&phase) = after;
        // A message belongs to what came before it, but for COMMIT.
        let now = if after == Phase::Committing { after } else { before };
        shared.transactions.fetch_add(u64::from(is_query(&message, "START TRANSACTION")), Ordering::SeqCst);
        if let Some(rest) = shared.bytes(true, message.len(), now) {
            server.write_all(&message[..rest.min(message.len())]).await?;
            return Ok(End::Closed);
        }
        match shared.message(now) {
            None => {}
            Some(Fault::Cut) => return Ok(End::Closed),
            Some(Fault::CutAnswer) => {
                server.write_all(&message).await?;
                // The server has read it by the end of the stream; what it answers nobody hears.
                server.shutdown().await?;
                return Ok(End::Closed);
            }
            Some(Fault::HalfClose) => {
                server.write_all(&message[..message.len() / 2]).await?;
                server.shutdown().await?;
                return Ok(End::Half);
            }
            Some(Fault::Tell) => shared.sprung.notify_one(),
            Some(Fault::Delay(pause)) => tokio::time::sleep(pause).await,
            Some(fault @ (Fault::Hold | Fault::HoldNext)) => {
                if fault == Fault::HoldNext {
                    server.write_all(&message).await?;
                }
                shared.sprung.notify_one();
                // Until the client is gone, or the server: the other direction sees that.
                let mut ignored = [0; 4096];
                let gone = async { while client.read(&mut ignored).await.is_ok_and(|read| read > 0) {} };
                tokio::select! {
                    () = gone => {}
                    () = shared.released.notified() => {}
                }
                return Ok(End::Closed);
            }
        }
        server.write_all(&message).await?;
    }
    Ok(End::Closed)
}

async fn downwards(
    mut server: unix::OwnedReadHalf,
    mut client: OwnedWriteHalf,
    shared: Arc<Shared>,
    phase: Arc<Mutex<Phase>>,
) -> io::Result<End> {
    let mut messages = Messages { has_tag: true, ..Messages::default() };
    while let Some(message) = messages.next(&mut server).await? {
        let now = *lock(&phase);
        if let Some(rest) = shared.bytes(false, message.len(), now) {
            client.write_all(&message[..rest.min(message.len())]).await?;
            return Ok(End::Closed);
        }
        // ReadyForQuery, no transaction.
        if message[0] == b'Z' && message.last() == Some(&b'I') && now == Phase::Committing {
            *lock(&phase) = Phase::Between;
        }
        client.write_all(&message).await?;
    }
    Ok(End::Closed)
}

/// Whether a message is a simple query that begins so.
fn is_query(message: &[u8], text: &str) -> bool {
    message[0] == b'Q' && message[5..].starts_with(text.as_bytes())
}

/// The phase that a client's message leads to.
fn entered(before: Phase, message: &[u8]) -> Phase {
    let text = match message[0] {
        b'Q' => &message[5..],
        // After the statement's name.
        b'P' => message[5..].splitn(2, |byte| *byte == 0).nth(1).unwrap_or_default(),
        _ => return before,
    };
    let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word.as_bytes()));
    if begins(&["START TRANSACTION"]) {
        Phase::Looking
    } else if begins(&["ROLLBACK"]) {
        Phase::Between
    } else if begins(&["COMMIT"]) {
        if before == Phase::Writing { Phase::Committing } else { Phase::Between }
    } else if before == Phase::Looking && begins(&WRITES) {
        Phase::Writing
    } else {
        before
    }
}

/// How statements begin that write.
const WRITES: [&str; 11] = [
    "INSERT ",
    "UPDATE ",
    "DELETE ",
    "COPY ",
    "SELECT rowdelta.record(",
    "SELECT rowdelta.renew_raw(",
    "SELECT rowdelta.unsettle(",
    "SELECT rowdelta.forget(",
    "SELECT rowdelta.settle(",
    "SELECT rowdelta.absent(",
    "SELECT rowdelta.merge(",
];

/// Splits a stream into the protocol's messages: a tag, the length of the rest, the rest. A client's first message
/// has no tag.
#[derive(Default)]
struct Messages {
    buffer: Vec<u8>,
    has_tag: bool,
}

impl Messages {
    async fn next(&mut self, stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(length) = self.length().filter(|length| *length <= self.buffer.len()) {
                self.has_tag = true;
                let rest = self.buffer.split_off(length);
                return Ok(Some(std::mem::replace(&mut self.buffer, rest)));
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The length of the next message with its head, once that is here.
    fn length(&self) -> Option<usize> {
        let tag = usize::from(self.has_tag);
        let bytes = self.buffer.get(tag..tag + 4)?.try_into().ok()?;
        Some(tag + u32::from_be_bytes(bytes) as usize)
    }
}
