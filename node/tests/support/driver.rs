//! Client libraries as the tests drive them: commands go in as JSON values, events come out as JSON values, so that one
//! scenario runs through every library. A client of another language is a process of its own (`tests/clients`).
//!
//! Commands: `connect {host, port, id, version, will?, willPayload?, stored?, transport?, path?, ca?, cert?, key?, user?, password?}`
//! (`stored`: a session that outlives the connection), `subscribe {filter, qos, noLocal?, subscriptionId?}`,
//! `unsubscribe {filter}`, `publish {topic, payload, qos, retain?, ack?, key?, correlation?}` (MQTT 5's user properties `ack` and, of rumqttc only,
//! `idempotency-key`; its correlation data), `disconnect`.
//! Events: `connected {code, present}`, `suback {codes}`, `unsuback`, `puback {code, reason?}` (the reason string: rumqttc only),
//! `message {topic, payload, qos, retain, ids, replyTo?, correlation?}`, `lost {code}`.

use std::{
    collections::VecDeque,
    env,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{PATIENCE, mqtt::Version};

mod rumqtt;
pub(crate) mod tunnel;

/// A client library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Library {
    Paho,
    MqttJs,
    Rumqttc,
}

/// Every library in both versions.
pub(crate) const LIBRARIES: [(Library, Version); 6] = [
    (Library::Paho, Version::V3),
    (Library::Paho, Version::V5),
    (Library::MqttJs, Version::V3),
    (Library::MqttJs, Version::V5),
    (Library::Rumqttc, Version::V3),
    (Library::Rumqttc, Version::V5),
];

/// What a client connects over, and as whom. For rumqttc a [`tunnel`] speaks TLS and WebSocket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Over<'a> {
    /// `tcp`, `tls`, `ws` or `wss`; empty: `tcp`.
    pub(crate) transport: &'a str,
    /// The path of a WebSocket.
    pub(crate) path: &'a str,
    /// The file of the CA that it trusts.
    pub(crate) ca: Option<&'a Path>,
    /// The files of its certificate and key.
    pub(crate) own: Option<(&'a Path, &'a Path)>,
    /// User name and password.
    pub(crate) login: Option<(&'a str, &'a str)>,
}

/// What runs the client.
enum Engine {
    Process { child: Child, commands: ChildStdin },
    Thread(rumqtt::Thread),
}

/// One connected client. Dropped: its process is killed, its connection closed without a goodbye.
pub(crate) struct Client {
    name: String,
    engine: Engine,
    events: mpsc::Receiver<Value>,
    /// Messages that came while another event was waited for.
    messages: VecDeque<Value>,
}

/// A message for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: String,
    pub(crate) qos: u64,
    pub(crate) retain: bool,
    /// MQTT 5's subscription identifiers, sorted.
    pub(crate) ids: Vec<u64>,
    /// MQTT 5's response topic and correlation data.
    pub(crate) reply_to: Option<(String, String)>,
}

impl Client {
    /// Connects a client with a clean session.
    #[track_caller]
    pub(crate) fn connect(library: Library, to: SocketAddr, version: Version, id: &str) -> Self {
        Self::connect_with_will(library, to, version, id, None)
    }

    /// Connects a client with a session that outlives the connection.
    #[track_caller]
    pub(crate) fn connect_stored(library: Library, to: SocketAddr, version: Version, id: &str) -> Self {
        Self::resume(library, to, version, id).0
    }

    /// As [`Client::connect_stored`]; also whether the CONNACK says that there was a session.
    #[track_caller]
    pub(crate) fn resume(library: Library, to: SocketAddr, version: Version, id: &str) -> (Self, bool) {
        let (mut client, mut command) = Self::start(library, to, version, id, None, Over::default());
        command["stored"] = json!(true);
        client.command(&command);
        let connected = client.expect("connected");
        assert_eq!(connected["code"], 0, "{}", client.name);
        let present = connected["present"].as_bool().unwrap_or_else(|| panic!("{}: {connected}", client.name));
        (client, present)
    }

    /// Connects a client with a will (topic and payload, QoS 1).
    #[track_caller]
    pub(crate) fn connect_with_will(
        library: Library,
        to: SocketAddr,
        version: Version,
        id: &str,
        will: Option<(&str, &str)>,
    ) -> Self {
        Self::connect_over(library, to, version, id, will, Over::default())
    }

    /// Connects a client over any transport.
    #[track_caller]
    pub(crate) fn connect_over(
        library: Library,
        to: SocketAddr,
        version: Version,
        id: &str,
        will: Option<(&str, &str)>,
        over: Over<'_>,
    ) -> Self {
        let (mut client, command) = Self::start(library, to, version, id, will, over);
        client.command(&command);
        assert_eq!(client.expect("connected")["code"], 0, "{}", client.name);
        client
    }

    /// A client that is refused, and the reason code that it is told; `None`: the connection was just closed.
    #[track_caller]
    pub(crate) fn refused_over(
        library: Library,
        to: SocketAddr,
        version: Version,
        id: &str,
        over: Over<'_>,
    ) -> Option<u64> {
        let (mut client, command) = Self::start(library, to, version, id, None, over);
        client.command(&command);
        let event = client.events.recv_timeout(PATIENCE).expect("an event");
        let code = event["code"].as_u64();
        assert!(matches!(event["event"].as_str(), Some("connected" | "lost")) && code != Some(0), "{event}");
        code
    }

    /// A client that does not come so far as to be refused: its connection ends without a CONNACK. Some libraries say so, the
    /// others' process ends.
    #[track_caller]
    pub(crate) fn unheard_over(library: Library, to: SocketAddr, version: Version, id: &str, over: Over<'_>) {
        let (mut client, command) = Self::start(library, to, version, id, None, over);
        client.command(&command);
        match client.events.recv_timeout(PATIENCE) {
            Ok(event) => assert_eq!(event["event"], "lost", "{}: {event}", client.name),
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{}: its connection does not end", client.name),
        }
    }

    #[track_caller]
    fn start(
        library: Library,
        to: SocketAddr,
        version: Version,
        id: &str,
        will: Option<(&str, &str)>,
        over: Over<'_>,
    ) -> (Self, Value) {
        let (say, events) = mpsc::channel();
        let engine = match library {
            Library::Paho => process(Command::new(python()).arg(script("paho_driver.py")), say),
            Library::MqttJs => process(Command::new("node").arg(node_script("mqttjs_driver.js")), say),
            Library::Rumqttc => Engine::Thread(rumqtt::Thread::start(say)),
        };
        let name = format!("{library:?} {version:?} client {id:?}");
        let client = Self { name, engine, events, messages: VecDeque::new() };
        let mut command = json!({"op": "connect", "host": to.ip().to_string(), "port": to.port(), "id": id,
            "version": version as u8});
        if let Some((topic, payload)) = will {
            (command["will"], command["willPayload"]) = (json!(topic), json!(payload));
        }
        (command["transport"], command["path"]) = (json!(over.transport), json!(over.path));
        if let Some(ca) = over.ca {
            command["ca"] = json!(ca);
        }
        if let Some((cert, key)) = over.own {
            (command["cert"], command["key"]) = (json!(cert), json!(key));
        }
        if let Some((user, password)) = over.login {
            (command["user"], command["password"]) = (json!(user), json!(password));
        }
        (client, command)
    }

    /// Subscribes and returns the SUBACK's code.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, filter: &str, qos: u8) -> u64 {
        self.subscribe_with(json!({"filter": filter, "qos": qos}))
    }

    /// As [`Client::subscribe`], with MQTT 5's options.
    #[track_caller]
    pub(crate) fn subscribe_with(&mut self, mut command: Value) -> u64 {
        command["op"] = json!("subscribe");
        self.command(&command);
        let suback = self.expect("suback");
        suback["codes"][0].as_u64().unwrap_or_else(|| panic!("{}: {suback}", self.name))
    }

    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.command(&json!({"op": "unsubscribe", "filter": filter}));
        self.expect("unsuback");
    }

    /// Publishes at QoS 1 and returns the PUBACK's reason code.
    #[track_caller]
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> u64 {
        self.publish_with(json!({"topic": topic, "payload": payload}))
    }

    /// As [`Client::publish`], with MQTT 5's user property.
    #[track_caller]
    pub(crate) fn publish_with(&mut self, command: Value) -> u64 {
        self.send(command);
        self.puback().0
    }

    /// Publishes at QoS 2, and waits until the exchange is over.
    #[track_caller]
    pub(crate) fn publish_once(&mut self, topic: &str, payload: &str) {
        self.command(&json!({"op": "publish", "topic": topic, "payload": payload, "qos": 2}));
        assert_eq!(self.puback().0, 0, "{}", self.name);
    }

    /// Publishes at QoS 1, and leaves the PUBACK to [`Client::puback`].
    #[track_caller]
    pub(crate) fn send(&mut self, mut command: Value) {
        (command["op"], command["qos"]) = (json!("publish"), json!(1));
        self.command(&command);
    }

    /// The next PUBACK's reason code and reason string.
    #[track_caller]
    pub(crate) fn puback(&mut self) -> (u64, Option<String>) {
        let puback = self.expect("puback");
        let code = puback["code"].as_u64().unwrap_or_else(|| panic!("{}: {puback}", self.name));
        (code, puback["reason"].as_str().map(str::to_owned))
    }

    /// Has nothing come that was not asked for yet?
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.messages.is_empty() && self.events.try_recv().map(|event| panic!("{}: {event}", self.name)).is_err()
    }

    /// Publishes at QoS 0, which nobody answers.
    #[track_caller]
    pub(crate) fn tell(&mut self, topic: &str, payload: &str) {
        self.command(&json!({"op": "publish", "topic": topic, "payload": payload, "qos": 0}));
    }

    /// The next message.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Message {
        let message = match self.messages.pop_front() {
            Some(message) => message,
            None => self.expect("message"),
        };
        let text = |member: &str| message[member].as_str().unwrap_or_else(|| panic!("{message}")).to_owned();
        let ids = message["ids"].as_array().map(|ids| ids.iter().filter_map(Value::as_u64).collect());
        Message {
            topic: text("topic"),
            payload: text("payload"),
            qos: message["qos"].as_u64().unwrap_or_else(|| panic!("{message}")),
            retain: message["retain"] == true,
            ids: ids.unwrap_or_default(),
            reply_to: message["replyTo"].as_str().map(|topic| (topic.to_owned(), text("correlation"))),
        }
    }

    /// The next message must be this one.
    #[track_caller]
    pub(crate) fn expect_message(&mut self, topic: &str, payload: &str, qos: u64) -> Message {
        let message = self.message();
        let seen = (message.topic.as_str(), message.payload.as_str(), message.qos);
        assert_eq!(seen, (topic, payload, qos), "{}", self.name);
        message
    }

    /// Waits until the node has closed the connection; the DISCONNECT's reason code, if the library tells it.
    #[track_caller]
    pub(crate) fn lost(&mut self) -> Option<u64> {
        self.expect("lost")["code"].as_u64()
    }

    /// Says goodbye and leaves.
    #[track_caller]
    pub(crate) fn leave(mut self) {
        self.command(&json!({"op": "disconnect"}));
        self.expect("lost");
    }

    /// The connection breaks without a goodbye.
    pub(crate) fn die(self) {
        drop(self);
    }

    #[track_caller]
    fn command(&mut self, command: &Value) {
        match &mut self.engine {
            Engine::Process { commands, .. } => {
                let line = format!("{command}\n");
                commands.write_all(line.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            }
            Engine::Thread(thread) => thread.command(command.clone()),
        }
    }

    #[track_caller]
    fn expect(&mut self, event: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let Ok(found) = self.events.recv_timeout(left) else {
                panic!("{}: no {event} within {PATIENCE:?} (or the client has ended)", self.name)
            };
            if found["event"] == event {
                return found;
            }
            if found["event"] == "message" {
                self.messages.push_back(found);
            } else {
                panic!("{}: {found} instead of {event}", self.name);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        match &mut self.engine {
            Engine::Process { child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Engine::Thread(thread) => thread.stop(),
        }
    }
}

fn process(command: &mut Command, say: mpsc::Sender<Value>) -> Engine {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let commands = child.stdin.take().expect("stdin is a pipe");
    let stdout = child.stdout.take().expect("stdout is a pipe");
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if say.send(event).is_err() {
                break;
            }
        }
    });
    Engine::Process { child, commands }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

/// A Python that can import paho-mqtt: `TIDEGATE_PYTHON`, or the system's.
fn python() -> String {
    let python = env::var("TIDEGATE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has_paho = Command::new(&python).args(["-c", "import paho.mqtt.packettypes"]).output();
    assert!(
        has_paho.is_ok_and(|output| output.status.success()),
        "{python} cannot import paho-mqtt; install it: python3 -m venv VENV && VENV/bin/pip install -r {}, and set \
         TIDEGATE_PYTHON=VENV/bin/python (test.sh does)",
        script("requirements.txt").display()
    );
    python
}

fn node_script(name: &str) -> PathBuf {
    let clients = script("");
    assert!(
        clients.join("node_modules/mqtt").is_dir(),
        "MQTT.js is not installed; run: npm ci --prefix {} (test.sh does)",
        clients.display()
    );
    clients.join(name)
}
