//! mosquitto's command line tools: every call is a connection of its own, and a process of its own.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
};

use super::{
    PATIENCE,
    mqtt::Version::{self, V5},
};

/// The tools, as one user of them calls them.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) to: SocketAddr,
    pub(crate) version: Version,
    /// Further arguments of every call: certificates, a user.
    pub(crate) more: Vec<String>,
}

/// A running `mosquitto_sub`. Dropped: killed, so that its connection breaks without a goodbye.
pub(crate) struct Subscriber {
    child: Child,
    lines: mpsc::Receiver<String>,
    talk: mpsc::Receiver<String>,
}

/// A running `mosquitto_rr`: it has asked and waits for the answer. Dropped: killed.
pub(crate) struct Asker {
    child: Child,
}

impl Tools {
    pub(crate) fn new(to: SocketAddr, version: Version) -> Self {
        Self { to, version, more: Vec::new() }
    }

    pub(crate) fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|&argument| argument.to_owned()));
        self
    }

    fn command(&self, program: &str, id: &str, qos: u8, more: &[&str]) -> Command {
        // Its output reaches the test line by line only through stdbuf.
        let mut command = Command::new("stdbuf");
        let version = if self.version == V5 { "5" } else { "mqttv311" };
        let (host, port) = (self.to.ip().to_string(), self.to.port().to_string());
        command.args(["-oL", program, "-V", version, "-h", &host, "-p", &port, "-i", id, "-q", &qos.to_string()]);
        command.args(&self.more).args(more).stdin(Stdio::null());
        command
    }

    /// Runs a tool to its end.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, id: &str, qos: u8, more: &[&str]) -> Output {
        let output = self.command(program, id, qos, more).output();
        output.unwrap_or_else(|error| panic!("{error}; install mosquitto-clients and coreutils"))
    }

    /// Publishes at QoS 1; the tool ends well only when the PUBACK has come.
    #[track_caller]
    pub(crate) fn publish(&self, id: &str, topic: &str, payload: &str, more: &[&str]) {
        self.publish_at(1, id, topic, payload, more);
    }

    /// Publishes; with QoS 2 the tool ends well only when the PUBCOMP has come.
    #[track_caller]
    pub(crate) fn publish_at(&self, qos: u8, id: &str, topic: &str, payload: &str, more: &[&str]) {
        let output = self.run("mosquitto_pub", id, qos, &[&["-t", topic, "-m", payload], more].concat());
        assert!(output.status.success(), "{id} to {topic}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Subscribes at QoS 1 and waits for the SUBACK.
    #[track_caller]
    pub(crate) fn subscribe(&self, id: &str, filter: &str, more: &[&str]) -> Subscriber {
        self.subscribe_at(1, id, filter, more)
    }

    /// Subscribes and waits for the SUBACK. A message is a line of topic, QoS, retain flag and payload; with MQTT 5 response topic
    /// and correlation data stand between.
    #[track_caller]
    pub(crate) fn subscribe_at(&self, qos: u8, id: &str, filter: &str, more: &[&str]) -> Subscriber {
        let format = if self.version == V5 { "%t %q %r <%R> <%D> %p" } else { "%t %q %r %p" };
        let arguments = [&["-t", filter, "-F", format, "-d"], more].concat();
        let mut command = self.command("mosquitto_sub", id, qos, &arguments);
        let mut child =
            command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{error}; install mosquitto-clients"));
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let (say, lines) = mpsc::channel();
        let (tell, talk) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let is_talk = line.starts_with("Subscribed (") || line.starts_with("Client ");
                let gone = if is_talk { tell.send(line).is_err() } else { say.send(line).is_err() };
                if gone {
                    break;
                }
            }
        });
        let subscriber = Subscriber { child, lines, talk };
        subscriber.says("Subscribed (");
        subscriber
    }

    /// Sends a request, and leaves the answer to [`Asker::answer`]. `more` should hold at least the topic for the answer.
    #[track_caller]
    pub(crate) fn ask(&self, qos: u8, id: &str, topic: &str, payload: &str, more: &[&str]) -> Asker {
        let mut command = self.command("mosquitto_rr", id, qos, &[&["-t", topic, "-m", payload], more].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Asker { child: child.unwrap_or_else(|error| panic!("{error}; install mosquitto-clients")) }
    }
}

impl Subscriber {
    /// The next message, as [`Tools::subscribe_at`] describes it, without empty response topic and correlation data.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a message").replace(" <> <>", "")
    }

    /// Has nothing come that was not asked for yet?
    #[track_caller]
    pub(crate) fn is_quiet(&self) -> bool {
        self.lines.try_recv().map(|line| panic!("{line}")).is_err()
    }

    /// Waits until the tool says this of its connection.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        loop {
            let line = self.talk.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the tool does not say {words:?}"));
            if line.contains(words) {
                return;
            }
        }
    }
}

impl Asker {
    /// What it was answered: it writes it and ends.
    #[track_caller]
    pub(crate) fn answer(mut self) -> String {
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().expect("stdout is a pipe");
        stdout.read_to_string(&mut text).expect("text");
        assert!(self.child.wait().expect("a child").success(), "{text}");
        text.trim_end().to_owned()
    }

    /// It ends without an answer; what it says about that.
    #[track_caller]
    pub(crate) fn fails(mut self) -> String {
        let mut text = String::new();
        let mut stderr = self.child.stderr.take().expect("stderr is a pipe");
        stderr.read_to_string(&mut text).expect("text");
        assert!(!self.child.wait().expect("a child").success(), "{text}");
        text
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
